// Counts what http-tests/cache-tests found: how many of its required and optimal tests passed, and
// which required ones failed. Run by `make conformance`.
//
//     node cache_tests.mjs CHECKOUT RESULTS

import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [checkout, file] = process.argv.slice(2)
const load = (name) => import(pathToFileURL(path.resolve(checkout, name)))
const { default: suites } = await load('tests/index.mjs')
const { determineTestResult, resultTypes } = await load('test-engine/lib/results.mjs')
const results = JSON.parse(fs.readFileSync(file))

const counts = { required: [0, 0], optimal: [0, 0] }
for (const test of suites.flatMap((suite) => suite.tests)) {
  const kind = test.kind ?? 'required'
  const found = determineTestResult(suites, test.id, results)
  const skipped = [resultTypes.untested, resultTypes.dependency_fail]
  if (!(kind in counts) || test.browser_only || skipped.includes(found)) continue
  counts[kind][1] += 1
  if (found === resultTypes.pass) {
    counts[kind][0] += 1
  } else if (kind === 'required') {
    console.log(`failed: ${test.id}: ${test.name}: ${results[test.id]?.[1] ?? ''}`)
  }
}
for (const [kind, [passed, all]] of Object.entries(counts)) {
  console.log(`${kind}: ${passed} of ${all} passed`)
}
