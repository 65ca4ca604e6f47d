// Reads images over one stream, from Node: node examples/read_lines.mjs HOST:PORT IMAGE...
//   npm install --no-save @grpc/grpc-js @grpc/proto-loader
//   export GOOGLE_PROTOS=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
import { readFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, ...paths] = process.argv.slice(2);
const googleProtos = process.env.GOOGLE_PROTOS; // the folder that holds google/rpc/status.proto
if (!paths.length || !googleProtos) {
  console.error("usage: GOOGLE_PROTOS=FOLDER node examples/read_lines.mjs HOST:PORT IMAGE...");
  process.exit(2);
}
const definition = loader.loadSync(["longhand/v1/recognition.proto", "google/rpc/error_details.proto"], {
  includeDirs: [fileURLToPath(new URL("../proto", import.meta.url)), googleProtos],
  enums: String,
  defaults: true, // a blank line's text is "", not undefined
  json: true, // unpacks the details of errors
});
const { RecognitionService } = grpc.loadPackageDefinition(definition).longhand.v1;
const client = new RecognitionService(address, grpc.credentials.createInsecure());
let failed = 0;

function complain(path, why) {
  failed += 1;
  console.error(`${path}: ${why}`);
}

async function* requests() {
  yield { config: { options: { alternatives: 1 } } };
  for (const path of paths) {
    try {
      yield { image: { requestId: path, image: await readFile(path) } };
    } catch (error) {
      complain(path, error.message);
    }
  }
}

const stream = client.StreamingRecognize();
Readable.from(requests()).pipe(stream); // reads no file before the server takes more, and half-closes at the end
try {
  // Answers come in any order; a bad image is an answer, too.
  for await (const { requestId, result, error } of stream) {
    if (result) {
      console.log(`${requestId}\t${result.text}`);
    } else {
      const info = error.details.find((detail) => detail["@type"].endsWith("/google.rpc.ErrorInfo"));
      complain(requestId, `${info?.reason}: ${error.message}`);
    }
  }
} catch (error) {
  complain(address, error.details); // the whole stream failed
}
client.close();
process.exitCode = failed ? 1 : 0;
