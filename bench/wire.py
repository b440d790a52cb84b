"""A network cable that is long: each frame arrives a little later at the other end. Linux only.

    python -m bench.wire --here eth0 --there-of 4711 --there far --delay-ms 50

It has one end in the network namespace it is started in, the other in that of a process, and is
gone when it ends. For kernels without `tc qdisc … netem`.

Imports: nothing of ours.
"""

import argparse
import collections
import ctypes
import fcntl
import os
import selectors
import struct
import time


TUNSETIFF = 0x400454ca
TAP_WITHOUT_HEADER = 0x0002 | 0x1000
CLONE_NEWNET = 0x40000000

#: Frames on their way, in one direction; what comes when it is full is lost, as on a real one.
LONGEST = 2000


def tap(name):
    """A new network interface of this namespace; → descriptor its frames are read from."""
    descriptor = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack('16sH22x', name.encode(), TAP_WITHOUT_HEADER))
    return descriptor


def enter_network_of(pid):
    """Go to the network namespace of that process."""
    with open('/proc/%d/ns/net' % pid) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), 'setns')


def carry(ends, delay_seconds):
    """Carry frames between the two ends, for ever."""
    under_way = {end: collections.deque(maxlen=LONGEST) for end in ends}
    selector = selectors.DefaultSelector()
    for end in ends:
        selector.register(end, selectors.EVENT_READ)
    while True:
        dues = [frames[0][0] for frames in under_way.values() if frames]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        for key, _events in selector.select(wait):
            [other] = set(ends) - {key.fd}
            under_way[other].append((time.monotonic() + delay_seconds, os.read(key.fd, 65536)))
        for end, frames in under_way.items():
            while frames and frames[0][0] <= time.monotonic():
                try:
                    os.write(end, frames.popleft()[1])
                except OSError:
                    pass  # that end is down: the frame is lost


def main():
    parser = argparse.ArgumentParser(description='A network cable with a delay.')
    parser.add_argument('--here', required=True, metavar='INTERFACE')
    parser.add_argument('--there-of', required=True, type=int, metavar='PID')
    parser.add_argument('--there', required=True, metavar='INTERFACE')
    parser.add_argument('--delay-ms', required=True, type=float, help='each way')
    options = parser.parse_args()
    here = tap(options.here)
    enter_network_of(options.there_of)
    there = tap(options.there)
    print('up', flush=True)
    carry((here, there), options.delay_ms / 1000)


if __name__ == '__main__':
    main()
