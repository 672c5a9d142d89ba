"""Remote control: the daemon that shares this machine's accelerators, and its client.

Nothing here is loaded by ``import apyfal``; `apyfal.Accelerator` loads `apyfal.host.client.accelerator` when `host_ip`
is given, and ``apyfal serve`` loads the daemon.
"""

from __future__ import annotations
