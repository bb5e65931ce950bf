"""A package index behind a password: prints its port, serves FOLDER/simple and FOLDER/files."""

import base64
import hashlib
import http.server
import pathlib
import sys
import zipfile

folder, login = pathlib.Path(sys.argv[1]), sys.argv[2]
expected = "Basic " + base64.b64encode(login.encode()).decode()


def wheel(name):
    path = folder / "files" / f"{name}-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "SECRET = 'served'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}\n"
        for path, text in files.items()
    )
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, text in files.items():
            archive.writestr(zipfile.ZipInfo(inside), text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    page = folder / "simple" / name.replace("_", "-") / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f'<a href="../../files/{path.name}#sha256={digest}">{path.name}</a>')


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.answer(super().do_GET)

    def do_HEAD(self):
        self.answer(super().do_HEAD)

    def answer(self, allowed):
        if self.headers.get("Authorization") == expected:
            return allowed()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


for name in ["guarded_one", "guarded_two", "guarded_three", "guarded_four"]:
    wheel(name)
server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), lambda *arguments: Handler(*arguments, directory=str(folder))
)
print(server.server_port, flush=True)
server.serve_forever()
