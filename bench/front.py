"""The line about the front end: a visitor's pages while many users press a button.

Imports: imapservers, mailgen, mailsite, people, rows, stack.
"""

import sys
import threading
import time

from bench import mailsite
from bench.imapservers import best_server
from bench.imapservers import deliver
from bench.mailgen import messages
from bench.people import User
from bench.people import Visitor
from bench.processes import accepts
from bench.processes import free_port
from bench.processes import wait_until
from bench.rows import milliseconds
from bench.rows import percentile
from bench.rows import Row
from bench.rows import row
from bench.stack import ADMIN
from bench.stack import Stack


USERS = {f'user{number:02}': f'secret{number:02}' for number in range(1, 41)}
MESSAGES_EACH = 6
SEED = 2005
ZOPE_THREADS = 4
WORKERS, WORKER_THREADS = 2, 4

#: The server is so far away, both ways together, that one box takes two seconds. Milliseconds.
ROUND_TRIP_MS = 190

#: Pages that the visitor reads when nothing else happens.
ALONE_PAGES = 200
LIMIT_SECONDS = 150.0

#: One folder has a dispatcher to acquire, the other has none.
WITH, WITHOUT = 'with_dispatcher', 'without'


def front():
    """40 users press "Get messages" at once; with workers, and in the requests."""
    with best_server(USERS) as server, Stack() as stack:
        for user in USERS:
            for mail in messages(SEED, user, MESSAGES_EACH):
                deliver(server, user, *mail)
        site = _start(stack, server)
        alone = _read(site, lambda visitor: len(visitor.seconds) >= ALONE_PAGES)
        found = {folder: _press(site, folder) for folder in (WITH, WITHOUT)}
    quiet = percentile(alone, 0.99)
    rows = [row("visitor's page on the idle site, p99", [milliseconds(quiet)], 'ms')]
    for folder, (pages, presses, boxes, seconds) in found.items():
        ratio = round(percentile(pages, 0.99) / quiet, 2)
        if folder == WITH:
            rows.append(Row('  while 40 users get messages, by workers ÷ idle', ratio, 'ratio',
                            '<= 2', ratio <= 2, []))
        else:
            rows.append(Row('  the same in the requests ÷ idle', ratio, 'ratio', '', None, []))
        rows += [row("    visitor's page, median", [milliseconds(percentile(pages, 0.5))], 'ms'),
                 row("    visitor's page, p99", [milliseconds(percentile(pages, 0.99))], 'ms'),
                 row("    user's press, median", [milliseconds(percentile(presses, 0.5))], 'ms'),
                 row("    user's press, worst", [milliseconds(max(presses))], 'ms'),
                 row('    one box takes, median', [boxes], 's'),
                 row('    until all have their mail', [round(seconds, 1)], 's')]
    return rows


def _start(stack, server):
    port = free_port()
    stack.start('slowlink', [sys.executable, '-m', 'bench.slowlink', '--listen', port,
                             '--to', f'{server.host}:{server.port}',
                             '--round-trip-ms', ROUND_TRIP_MS],
                is_ready=lambda process: accepts('127.0.0.1', port))
    stack.start_zeo()
    site = mailsite.MailSite(stack.start_zope(threads=ZOPE_THREADS), ADMIN)
    site.add_users(USERS)
    for folder in (WITH, WITHOUT):
        site.add_folder(folder)
        if folder == WITH:
            site.add_dispatcher(folder, managers=WORKERS)
        site.add_mail_boxes(folder, USERS, '127.0.0.1', port)
    for number in range(1, WORKERS + 1):
        stack.start_worker(f'worker{number}',
                           f'/{WITH}/asynchronous_call_dispatcher/zam{number}', WORKER_THREADS)
    return site


def _read(site, is_enough):
    """Seconds of each page until that is so."""
    with Visitor(site.url) as visitor:
        wait_until(lambda: visitor.problem or is_enough(visitor), LIMIT_SECONDS)
    if visitor.problem:
        raise RuntimeError(visitor.problem)
    return visitor.seconds


def _press(site, folder):
    """(the visitor's pages, the users' presses, median of a box, all), seconds each."""
    give_up = threading.Event()
    users = [User(user, password, site.box_url(folder, user), 'manage_getMessages',
                  MESSAGES_EACH, give_up) for user, password in USERS.items()]
    for user in users:
        user.log_in()
    began = time.monotonic()
    with Visitor(site.url) as visitor:
        for user in users:
            user.start()
        wait_until(lambda: not any(user.is_alive() for user in users), LIMIT_SECONDS)
        seconds = time.monotonic() - began
        give_up.set()
    problems = [user.problem for user in users if user.problem or user.state != 'done']
    if visitor.problem or problems:
        raise RuntimeError(f'{visitor.problem}, {problems}')
    boxes = [user.account['ended_at'] - user.account['started_at'] for user in users]
    return visitor.seconds, [user.press_seconds for user in users], percentile(boxes, 0.5), seconds
