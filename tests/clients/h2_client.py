"""Asks over HTTP/2 with Python's h2: GET, and POST of a file; writes both answers to files."""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events


def ask(port, ca, method, path, body):
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection(("127.0.0.1", port), timeout=45)
    link = context.wrap_socket(raw, server_hostname="localhost")
    assert link.selected_alpn_protocol() == "h2"
    http = h2.connection.H2Connection(h2.config.H2Configuration())
    http.initiate_connection()
    fields = [(":method", method), (":scheme", "https"), (":path", path),
              (":authority", f"localhost:{port}")]
    stream = http.get_next_available_stream_id()
    http.send_headers(stream, fields, end_stream=not body)
    answer, status, ended = b"", None, False
    while not ended:
        # As much as the windows allow, each time that they may have grown.
        while body and (room := min(http.local_flow_control_window(stream),
                                    http.max_outbound_frame_size, len(body))):
            http.send_data(stream, body[:room], end_stream=room == len(body))
            body = body[room:]
        link.sendall(http.data_to_send())
        received = link.recv(65536)
        assert received, "the connection ended"
        for event in http.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                status = dict(event.headers)[b":status"]
            elif isinstance(event, h2.events.DataReceived):
                answer += event.data
                http.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.StreamEnded):
                ended = True
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise SystemExit(f"broken: {event}")
    http.close_connection()
    link.sendall(http.data_to_send())
    assert status == b"200", status
    return answer


port, ca, body, got, posted = sys.argv[1:]
with open(got, "wb") as file:
    file.write(ask(int(port), ca, "GET", "/page", b""))
with open(body, "rb") as file, open(posted, "wb") as out:
    out.write(ask(int(port), ca, "POST", "/echo", file.read()))
