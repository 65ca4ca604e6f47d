"""Longhand's server: handwritten text line recognition over gRPC."""

import os

# OpenCV reads this once, when it is first imported, so it must stand before every import of cv2. It is the
# second line of defence behind longhand_server.image_formats: the most that ImageLimits can be set to.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))

# ONNX Runtime reads this when it is first imported. Without it, it reports events to Microsoft and keeps a number for
# the machine in ~/.cache: whoever runs this service has agreed to neither.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
