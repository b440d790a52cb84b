"""The line about the front end: a visitor's pages while many users press a button.

Imports: imapservers, mailgen, mailsite, people, rows, stack.
"""

import random
import statistics
import sys
import threading
import time
from typing import NamedTuple

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

#: Pages that the visitor reads when nothing else happens, and how long after the last one it reads
#: the next: a percentile wants many.
ALONE_PAGES = 500
READING_SECONDS = 0.01
LIMIT_SECONDS = 150.0

#: Users press at moments of their own, in as many seconds as one box takes.
PRESS_SECONDS = 2.0

#: One folder has a dispatcher, which those in it acquire; the last one has none.
WITH, WITHOUT = 'with_dispatcher', 'without'
RUNS = tuple(f'{WITH}/run{number}' for number in range(1, 4))
AT_ONCE = tuple(f'{WITH}/at_once{number}' for number in range(1, 4))


def front():
    """40 users press "Get messages"; with workers, all in one moment, and in the requests."""
    with best_server(USERS) as server, Stack() as stack:
        for user in USERS:
            for mail in messages(SEED, user, MESSAGES_EACH):
                deliver(server, user, *mail)
        site = _start(stack, server)
        quiet, with_workers = [], []
        for folder in RUNS:
            quiet.append(percentile(_read(site), 0.99))
            with_workers.append(_press(site, folder, PRESS_SECONDS))
        at_once = [_press(site, folder, 0.0) for folder in AT_ONCE]
        without = _press(site, WITHOUT, PRESS_SECONDS)
    idle = statistics.median(quiet)
    return [row("visitor's page on the idle site, p99", [milliseconds(each) for each in quiet],
                'ms'),
            row('  while 40 users get messages, by workers ÷ idle',
                [round(percentile(each.pages, 0.99) / alone, 2)
                 for each, alone in zip(with_workers, quiet, strict=True)], 'ratio', most=2),
            *_rows(with_workers),
            row('  all pressed in one moment, by workers ÷ idle',
                [round(percentile(each.pages, 0.99) / idle, 2) for each in at_once], 'ratio'),
            *_rows(at_once),
            row('  the same in the requests ÷ idle',
                [round(percentile(without.pages, 0.99) / idle, 2)], 'ratio'),
            *_rows([without])]


class _Run(NamedTuple):
    """The visitor's pages, the users' presses, median of a box, until all is done; seconds each.
    """

    pages: list
    presses: list
    box: float
    seconds: float


def _rows(runs):
    return [row("    visitor's page, median", _times(run.pages for run in runs), 'ms'),
            row("    visitor's page, p99", _times((run.pages for run in runs), 0.99), 'ms'),
            row("    user's press, median", _times(run.presses for run in runs), 'ms'),
            row("    user's press, worst", _times((run.presses for run in runs), 1.0), 'ms'),
            row('    one box takes, median', [round(run.box, 2) for run in runs], 's'),
            row('    until all have their mail', [round(run.seconds, 1) for run in runs], 's')]


def _times(of_runs, share=0.5):
    return [milliseconds(percentile(seconds, share)) for seconds in of_runs]


def _start(stack, server):
    port = free_port()
    stack.start('slowlink', [sys.executable, '-m', 'bench.slowlink', '--listen', port,
                             '--to', f'{server.host}:{server.port}',
                             '--round-trip-ms', ROUND_TRIP_MS],
                is_ready=lambda process: accepts('127.0.0.1', port))
    stack.start_zeo()
    site = mailsite.MailSite(stack.start_zope(threads=ZOPE_THREADS), ADMIN)
    site.add_users(USERS)
    for folder in (WITH, *RUNS, *AT_ONCE, WITHOUT):
        site.add_folder(folder)
        if folder == WITH:
            site.add_dispatcher(folder, managers=WORKERS)
        else:
            site.add_mail_boxes(folder, USERS, '127.0.0.1', port)
    for number in range(1, WORKERS + 1):
        stack.start_worker(f'worker{number}',
                           f'/{WITH}/asynchronous_call_dispatcher/zam{number}', WORKER_THREADS)
    return site


def _read(site):
    """Seconds of each page when nothing else happens."""
    with _visitor(site) as visitor:
        wait_until(lambda: visitor.problem or len(visitor.seconds) >= ALONE_PAGES, LIMIT_SECONDS)
    if visitor.problem:
        raise RuntimeError(visitor.problem)
    return visitor.seconds


def _visitor(site):
    return Visitor(site.url, READING_SECONDS)


def _press(site, folder, press_seconds):
    """A _Run. press_seconds -- all press within so many."""
    give_up, dice = threading.Event(), random.Random(SEED)
    users = [User(user, password, site.box_url(folder, user), 'manage_getMessages', MESSAGES_EACH,
                  give_up, dice.uniform(0.0, press_seconds))
             for user, password in USERS.items()]
    for user in users:
        user.log_in()
    began = time.monotonic()
    with _visitor(site) as visitor:
        for user in users:
            user.start()
        wait_until(lambda: not any(user.is_alive() for user in users), LIMIT_SECONDS)
        seconds = time.monotonic() - began
        give_up.set()
    problems = [user.problem for user in users if user.problem or user.state != 'done']
    if visitor.problem or problems:
        raise RuntimeError(f'{visitor.problem}, {problems}')
    boxes = [user.account['ended_at'] - user.account['started_at'] for user in users]
    return _Run(visitor.seconds, [user.press_seconds for user in users], percentile(boxes, 0.5),
                seconds)
