//! What makes of any base what the contract wants.

/// A program for any POSIX shell: the user with its folders, and the virtual environment. Its arguments are the
/// wanted interpreter and the wanted version, each empty where nobody cares. A line on standard error that begins
/// with `imagespec: ` and the name of a field says what is wrong with the declaration.
pub(super) const PROGRAM: &str = r#"set -eu
wanted=$1 version=$2
wrong() { echo "imagespec: $*" >&2; exit 64; }

entry=$(grep '^flytekit:' /etc/passwd 2>/dev/null || true)
case $entry in
flytekit:*:1000:1000:*) ;;
'')
  named=/bin/sh
  if [ -x /bin/bash ]; then named=/bin/bash; fi
  [ -e /etc/passwd ] || echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
  [ -e /etc/group ] || echo 'root:x:0:' >/etc/group
  add() {
    if [ ! -e "$1" ] || grep -q '^flytekit:' "$1"; then return 0; fi
    if [ -s "$1" ] && [ -n "$(tail -c 1 "$1")" ]; then echo >>"$1"; fi
    echo "$2" >>"$1"
  }
  add /etc/passwd "flytekit:x:1000:1000::/home/flytekit:$named"
  add /etc/group 'flytekit:x:1000:'
  add /etc/shadow 'flytekit:!:3652:0:99999:7:::'
  add /etc/gshadow 'flytekit:!::'
  ;;
*) wrong "base_image: it has a user \`flytekit\` of other ids than 1000:1000; rename that one" ;;
esac
mkdir -p /root /home/flytekit
chown 1000:1000 /root /home/flytekit
chmod 755 /root /home/flytekit

if [ -e /opt/venv/pyvenv.cfg ]; then
  [ -z "$wanted" ] || wrong "python_exec: the base has a virtual environment, which it cannot change"
  found=$(/opt/venv/bin/python -I -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    wrong "base_image: the interpreter of its virtual environment does not run"
else
  if [ -n "$wanted" ]; then
    [ -x "$wanted" ] || wrong "python_exec: the base has no program at that path: \`$wanted\`"
    python=$wanted
  else
    python=$(command -v python3 || command -v python || true)
    [ -n "$python" ] || wrong "base_image: it has no Python on its PATH; name one with \`python_exec\`, or another base"
  fi
  said=$("$python" -I -c 'import os, sys, sysconfig
print("%d.%d" % sys.version_info[:2],
    os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")))') ||
    wrong "python_exec: that interpreter does not run: \`$python\`"
  found=${said%% *} said=${said#* }
  managed=${said##* } program=${said% *}
  system=false
  if [ "$managed" = True ] || [ -n "$wanted" ]; then system=true; fi
  site=/opt/venv/lib/python$found/site-packages
  mkdir -p /opt/venv/bin "$site"
  ln -s lib /opt/venv/lib64
  ln -s "$program" /opt/venv/bin/python
  ln -s python /opt/venv/bin/python3
  ln -s python "/opt/venv/bin/python$found"
  printf 'home = %s\ninclude-system-site-packages = %s\nversion = %s\n' "${program%/*}" "$system" "$found" \
    >/opt/venv/pyvenv.cfg
  chown -R -h 1000:1000 /opt/venv
fi
if [ -n "$version" ]; then
  case $version. in
  "$found".*) ;;
  *) wrong "python_version: the base has no Python $version but $found; name another interpreter with \`python_exec\`" ;;
  esac
fi
"#;
