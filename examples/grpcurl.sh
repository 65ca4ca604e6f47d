#!/usr/bin/env bash
# Calls from a shell; the server answers reflection, so no .proto file is needed.
#   examples/grpcurl.sh IMAGE [HOST:PORT]
# Uses `buf curl` (npm package @bufbuild/buf) or grpcurl, whichever is there. BUF names another buf.
set -euo pipefail
image=${1:?usage: examples/grpcurl.sh IMAGE [HOST:PORT]} address=${2:-localhost:50051}
service=longhand.v1.RecognitionService
request() { printf '{"image": "%s", "options": {"alternatives": 2, "includeWords": true}}' "$(base64 -w0 "$image")"; }

if command -v "${BUF:-buf}" >/dev/null; then
    call=("${BUF:-buf}" curl --protocol grpc --http2-prior-knowledge)
    "${call[@]}" -d '{}' "http://$address/$service/ListModels"
    request | "${call[@]}" -d @- "http://$address/$service/Recognize"
else
    grpcurl -plaintext -d '{}' "$address" "$service/ListModels"
    request | grpcurl -plaintext -d @ "$address" "$service/Recognize"
fi
