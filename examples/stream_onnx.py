"""Stream a digit pixel by pixel through an exported step, with numpy and an ONNX runtime only.

python -m src.export outputs/demo/digits-sdn/checkpoints/best.ckpt digits.onnx
python examples/stream_onnx.py digits.onnx
"""

import sys

import numpy as np
import onnxruntime

# A handwritten 3 of scikit-learn's digits, 8 x 8 pixels of 0 .. 16.
DIGIT = """0 0 7 15 13 1 0 0   0 8 13 6 15 4 0 0   0 2 1 13 13 0 0 0   0 0 2 15 11 1 0 0
           0 0 0 1 12 12 1 0   0 0 0 0 1 10 8 0   0 0 8 4 5 14 9 0   0 0 7 13 13 9 0 0"""

session = onnxruntime.InferenceSession(sys.argv[1])
kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
state = {i.name: np.zeros(i.shape, kinds[i.type]) for i in session.get_inputs() if i.name != "x"}
for t, pixel in enumerate(np.array(DIGIT.split(), np.float32) / 16):
    logits, *new = session.run(None, {"x": pixel.reshape(1, 1), **state})
    state = dict(zip(state, new, strict=True))
    if t % 8 == 7:
        p = np.exp(logits[0] - logits[0].max())
        p /= p.sum()
        bars = "  ".join(f"{digit}:{'█' * round(10 * v):10s}" for digit, v in enumerate(p) if v > 0.05)
        print(f"after row {t // 8 + 1}: {p.argmax()} ({p.max():.0%})  {bars}")
