-- Takes one request of an allowance in each window, or of none. The same as allowance.rs, in
-- microseconds, on the clock of the store, so that all who share it agree.
--
-- KEYS: one for each window. ARGV: interval and burst of each window, one after another.
-- Answers with: 1 if it is within, 0 if not; the window that is closest to its end, or over it;
-- the requests that are left in it; the microseconds until it is whole; and, if it is over, those
-- until the next request is within.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local then_whole = {}
local tightest, left_least, whole_after = 0, nil, 0

for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local whole = math.max(tonumber(redis.call('GET', key) or 0), now)
  local after = whole + interval
  local over = (after - now) - interval * burst
  if over > 0 then
    return { 0, i - 1, 0, math.ceil(whole - now), math.ceil(over) }
  end
  local left = math.floor((interval * burst - (after - now)) / interval)
  if left_least == nil or left < left_least then
    tightest, left_least, whole_after = i - 1, left, after - now
  end
  then_whole[i] = after
end

for i, key in ipairs(KEYS) do
  local life = math.max(math.ceil((then_whole[i] - now) / 1000), 1)
  redis.call('SET', key, string.format('%.3f', then_whole[i]), 'PX', life)
end
return { 1, tightest, left_least, math.ceil(whole_after), 0 }
