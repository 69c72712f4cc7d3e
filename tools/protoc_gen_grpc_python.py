"""A protoc plugin that writes ``*_pb2_grpc.py`` for every proto file with a service.

grpcio-tools has this generator built into its protoc and offers it in no other way; buf runs only
plugins. So this hands what buf sends to that protoc and sends back what it wrote.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Answer one request of buf's; what went wrong is in the response's ``error``."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    wanted = set(request.file_to_generate)
    with_service = [
        file.name for file in request.proto_file if file.name in wanted and file.service
    ]
    if not with_service:
        return response
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch, "in.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(scratch, "out")
        out.mkdir()
        status = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={descriptors}",
                f"--grpc_python_out={out}",
                *with_service,
            ]
        )
        if status != 0:
            response.error = f"grpc_tools.protoc ended with status {status} for {with_service}"
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
    return response


if __name__ == "__main__":
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())
