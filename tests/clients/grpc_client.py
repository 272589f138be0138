"""Makes calls of all four kinds with grpcio, and prints what comes of them, a line each."""

import sys

import grpc

address, ca = sys.argv[1:]
with open(ca, "rb") as file:
    credentials = grpc.ssl_channel_credentials(root_certificates=file.read())


def told(call):
    return f"{call.code().value[0]} {call.details()}"


with grpc.secure_channel(address, credentials) as channel:
    def kind(make, method):
        return make(f"/echo.Echo/{method}", lambda text: text.encode(), lambda data: data.decode())

    answer, call = kind(channel.unary_unary, "Echo").with_call("one", timeout=40)
    print("unary:", answer, told(call))
    answer, call = kind(channel.stream_unary, "Join").with_call(iter(["one", "two"]), timeout=40)
    print("client streams:", answer, told(call))
    call = kind(channel.unary_stream, "Split")("one two", timeout=40)
    words = []
    try:
        for word in call:
            words.append(word)
    except grpc.RpcError:
        words.append("failed")  # with the status that stands in the trailers
    print("server streams:", " ".join(words), told(call))
    call = kind(channel.stream_stream, "Echo")(iter(["one", "two", "three"]), timeout=40)
    print("both stream:", " ".join(call), told(call))
    try:
        kind(channel.unary_unary, "Hang").with_call("one", timeout=1)
    except grpc.RpcError as error:
        print("deadline:", error.code().name)
