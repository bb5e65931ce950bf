"""Says what is in a root file system, which is a folder or an archive: a line for each entry of `/srv`, of what the
image changed in `/etc`, and one for all the rest."""

import hashlib
import os
import pathlib
import stat
import sys
import tarfile

# What engines put into a container themselves.
OWN = {".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "run/.containerenv"}
OWN_TREES = ("dev", "proc", "sys", "run")
SHOWN = ("srv", "etc/apt", "etc/issue")


def digest(content):
    return hashlib.sha256(content).hexdigest()[:12]


def of_file(file):
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()[:12]


def of_folder(root):
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = pathlib.Path(folder, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            content = digest(b"")
            if kind == stat.S_IFREG:
                with path.open("rb") as file:
                    content = of_file(file)
            elif kind == stat.S_IFLNK:
                content = digest(os.readlink(path).encode())
            capability = b""
            if kind == stat.S_IFREG and "security.capability" in os.listxattr(path):
                capability = os.getxattr(path, "security.capability")
            yield (
                str(path.relative_to(root)),
                kind,
                status.st_mode & 0o7777,
                status.st_uid,
                status.st_gid,
                content,
                capability,
            )


def of_archive(file):
    kinds = {tarfile.REGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}
    with tarfile.open(fileobj=file, mode="r|") as archive:
        seen = {}
        for entry in archive:
            name = entry.name.removeprefix("./").rstrip("/")
            if entry.type == tarfile.LNKTYPE:
                # Another name of the same file.
                yield (name, *seen[entry.linkname.removeprefix("./")])
                continue
            kind = kinds.get(entry.type, 0)
            content = digest(b"")
            if kind == stat.S_IFREG:
                content = of_file(archive.extractfile(entry))
            elif kind == stat.S_IFLNK:
                content = digest(entry.linkname.encode())
            capability = entry.pax_headers.get("SCHILY.xattr.security.capability", "")
            capability = capability.encode("utf-8", "surrogateescape")
            seen[name] = (kind, entry.mode & 0o7777, entry.uid, entry.gid, content, capability)
            yield (name, *seen[name])
    # What writes the archive fails where nobody reads the padding at its end.
    while file.read(1 << 16):
        pass


def shown(entry):
    name, kind, mode, uid, gid, content, capability = entry
    if kind == stat.S_IFLNK:
        mode = 0o777
    return f"{name} {kind:o} {mode:o} {uid}:{gid} {content} {capability.hex()}"


if sys.argv[1] == "-":
    entries = of_archive(sys.stdin.buffer)
else:
    entries = of_folder(sys.argv[1])
rest = []
for entry in sorted(entries):
    name = entry[0]
    if name in OWN or not name or name.split("/")[0] in OWN_TREES:
        continue
    if any(name == part or name.startswith(part + "/") for part in SHOWN):
        print(shown(entry))
    else:
        rest.append(shown(entry))
print(len(rest), hashlib.sha256("\n".join(rest).encode()).hexdigest())
if os.environ.get("ALL"):
    print("\n".join(rest))
