"""Writes a wheel whose modules are together larger than the memory a build may take."""

import base64
import hashlib
import sys
import zipfile

text = b"".join(b"# %s\n" % hashlib.sha256(b"%d" % n).hexdigest().encode() * 9 for n in range(20_000))
files = {f"heavy/m{n}.py": b"NUMBER = %d\n" % n + text for n in range(28)}
info = "heavy-1.dist-info/"
files["heavy/__init__.py"] = b""
files[info + "METADATA"] = b"Metadata-Version: 2.1\nName: heavy\nVersion: 1\n"
files[info + "WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
rows = []
for name, data in files.items():
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    rows.append(f"{name},sha256={digest},{len(data)}\n")
files[info + "RECORD"] = "".join([*rows, info + "RECORD,,\n"]).encode()
with zipfile.ZipFile(sys.argv[1] + "/heavy-1-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
    for name, data in files.items():
        wheel.writestr(name, data)
print(sum(map(len, files.values())) >> 20, "MiB")
