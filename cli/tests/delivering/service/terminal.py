"""Runs a command at a terminal, interrupts it once it shows a text, and answers its question.

terminal.py TEXT ANSWER PROGRAM ARGUMENT...
"""

import os
import pty
import sys

text, answer, *command = (os.fsencode(argument) for argument in sys.argv[1:])
process, terminal = pty.fork()
if process == 0:
    os.execvp(command[0], command)
shown, steps = b"", [(text, b"\x03"), (b"[c] ", answer + b"\n")]
while True:
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    if not part:
        break
    shown += part
    if steps and steps[0][0] in shown:
        os.write(terminal, steps.pop(0)[1])
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
