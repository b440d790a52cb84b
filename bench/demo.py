"""``make demo``: real mail moves from an IMAP server into Zope while pages stay quick.

In real processes: an IMAP server, a ZEO server, Zope under waitress with 4 threads, and two
workers with a manager (ZAM) each inside one dispatcher (ZAD). 20 users press "Get messages" and
"Synchronise all folders" at once while a visitor reads pages: first in a folder with the
dispatcher, then in one without, where each synchronisation runs in the request.

Environment: KEEP=1 leaves all of it running until Ctrl-C; DEMO_KILL=1 kills a worker with
SIGKILL half way and starts it again; ZASYNC_IMAP=dovecot or pypi chooses the IMAP server.
Exit code: 0 when every count agrees; 1, with a sentence, when not.

Imports: imapservers, mailgen, mailsite, people, processes, stack, terminal.
"""

import os
import re
import signal
import statistics
import sys
import threading
import time
from typing import NamedTuple

from bench import mailsite
from bench.imapservers import best_server
from bench.imapservers import deliver
from bench.imapservers import ServerMissing
from bench.mailgen import messages
from bench.people import User
from bench.people import Visitor
from bench.processes import accepts
from bench.processes import free_port
from bench.processes import ProcessError
from bench.processes import wait_until
from bench.stack import ADMIN
from bench.stack import Stack
from bench.stack import StackError
from bench.terminal import Progress
from bench.terminal import table


USERS = {'user%02d' % n: 'secret%02d' % n for n in range(1, 21)}
MESSAGES_EACH = 100
SEED = 2005
ZOPE_THREADS, WORKER_THREADS = 4, 2

#: What a site's IMAP server is away, both ways together. Loopback has 0.05 ms, a server in
#: another house 10 to 50. Milliseconds.
ROUND_TRIP_MS = 30

#: All users' presses of one button are done by then, or something is stuck. Seconds.
PHASE_SECONDS = 90.0

#: Both are there in a Zope: one folder has a dispatcher to acquire, the other has none.
WITH, WITHOUT = 'with_dispatcher', 'without'


class DemoFailed(Exception):
    """Something disagrees; the sentence says what."""


class Run(NamedTuple):
    """What was measured while all users had their mail synchronised, in one of the folders."""

    seconds: float
    presses: list  #: seconds from each press to its answer
    pages: list  #: seconds of each of the visitor's pages


def main():
    stop_on_signals()
    started = time.monotonic()
    try:
        with best_server(USERS) as server, Stack() as stack:
            code = show(server, stack)
            say('%.0f s in all.' % (time.monotonic() - started))
            keep_running(server, stack)
            return code
    except (ProcessError, ServerMissing, StackError) as error:
        print('The demonstration could not start. %s' % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nStopped.', file=sys.stderr)
        return 130


def show(server, stack):
    """The demonstration; -> exit code."""
    try:
        fill(server)
        site = start(stack, server)
        alone = read_alone(site)
        with_workers = synchronise(stack, site, WITH, bool(os.environ.get('DEMO_KILL')))
        in_request = synchronise(stack, site, WITHOUT)
        report(server, stack, alone, with_workers, in_request)
    except (DemoFailed, mailsite.SiteError) as error:
        print('The demonstration failed. %s' % error, file=sys.stderr)
        return 1
    return 0


# -- before ---------------------------------------------------------------------------------------

def fill(server):
    """Deliver every user's mail."""
    say('Mail: %d mailboxes with %d messages each' % (len(USERS), MESSAGES_EACH))
    progress = Progress('delivering', len(USERS) * MESSAGES_EACH, 'messages')
    for number, user in enumerate(USERS, 1):
        for mail in messages(SEED, user, MESSAGES_EACH):
            deliver(server, user, *mail)
        progress.show(number * MESSAGES_EACH)
    progress.end(len(USERS) * MESSAGES_EACH)


def start(stack, server):
    """Start everything else and make the site; -> MailSite."""
    say('Starting, each in a process of its own:')
    say('  IMAP   %s, port %d' % (server.name, server.port))
    port = free_port()
    stack.start('slowlink', [sys.executable, '-m', 'bench.slowlink', '--listen', port,
                             '--to', '%s:%d' % (server.host, server.port),
                             '--round-trip-ms', ROUND_TRIP_MS],
                is_ready=lambda process: accepts('127.0.0.1', port))
    say('  link   between Zope or a worker and the IMAP server, a round trip of %d ms, '
        'port %d' % (ROUND_TRIP_MS, port))
    say('  ZEO    port %d' % stack.start_zeo()[1])
    url = stack.start_zope(threads=ZOPE_THREADS)
    say('  Zope   %s, %d threads' % (url, ZOPE_THREADS))
    site = mailsite.MailSite(url, ADMIN)
    site.add_users(USERS)
    for folder in (WITH, WITHOUT):
        site.add_folder(folder)
        if folder == WITH:
            site.add_dispatcher(folder, managers=2)
        site.add_mail_boxes(folder, USERS, '127.0.0.1', port)
    for number in (1, 2):
        target = '/%s/asynchronous_call_dispatcher/zam%d' % (WITH, number)
        stack.start_worker('worker%d' % number, target, WORKER_THREADS)
        say('  worker %s, %d threads' % (target, WORKER_THREADS))
    return site


def read_alone(site):
    """Seconds of pages when nothing else happens."""
    with Visitor(site.url) as visitor:
        wait_until(lambda: len(visitor.seconds) >= 30 or visitor.problem, 30)
    check(visitor)
    return visitor.seconds


# -- the thing itself -----------------------------------------------------------------------------

def synchronise(stack, site, folder, kill=False):
    """All users press both buttons, one after the other, while a visitor reads; -> Run."""
    say('All %d users at once, %s:' % (len(USERS), {
        WITH: 'with a dispatcher and two workers', WITHOUT: 'in the request'}[folder]))
    inbox = {user: sum(mail.folder == 'INBOX' for mail in messages(SEED, user, MESSAGES_EACH))
             for user in USERS}
    others = {user: MESSAGES_EACH - inbox[user] for user in USERS}
    with Visitor(site.url) as visitor:
        first = press(stack, site, folder, 'manage_getMessages', 'Get messages', inbox)
        second = press(stack, site, folder, 'manage_synchronizeAll', 'Synchronise all folders',
                       others, kill)
    check(visitor)
    return Run(first.seconds + second.seconds, first.presses + second.presses, visitor.seconds)


def check(visitor):
    if visitor.problem or not visitor.seconds:
        raise DemoFailed(visitor.problem or 'The visitor got no page at all.')


def press(stack, site, folder, button, label, expected, kill=False):
    """All users press a button and watch until all is done; -> Run without pages."""
    give_up = threading.Event()
    users = [User(user, password, site.box_url(folder, user), button, expected[user], give_up)
             for user, password in USERS.items()]
    total = sum(expected.values())
    progress = Progress(label, total, 'messages')
    deadline = time.monotonic() + PHASE_SECONDS
    for user in users:
        user.start()
    while any(user.is_alive() for user in users):
        fetched = sum(user.fetched for user in users)
        progress.show(fetched)
        if kill and is_half_way(fetched, total, workers(stack)[0]):
            kill = False
            kill_and_restart(workers(stack)[0], progress, fetched)
        if time.monotonic() > deadline:
            give_up.set()
            raise DemoFailed(stuck(label, users, stack))
        give_up.wait(0.1)
    seconds = progress.end(sum(user.fetched for user in users))
    problems = ['%s: %s' % (user.name, user.problem) for user in users if user.problem]
    if problems:
        raise DemoFailed('%s: %s%s' % (label, '; '.join(problems[:5]), log_tails(stack)))
    if kill:
        raise DemoFailed('DEMO_KILL: the work was done before a worker could be killed.')
    return Run(seconds, [user.press_seconds for user in users], [])


def workers(stack):
    return [process for process in stack.processes if process.name.startswith('worker')]


def is_half_way(fetched, total, worker):
    """Whether now is the time to kill: enough was done, and the worker has calls."""
    accepted, ended, _again = calls_of(worker)
    return fetched >= total * 0.3 and accepted > ended


def kill_and_restart(worker, progress, fetched):
    worker.kill()
    progress.remark('%s was killed (SIGKILL) when %d messages had come' % (worker.name, fetched))
    started = time.monotonic()
    worker.start()
    progress.remark('%s serves again, %.1f s later' % (worker.name, time.monotonic() - started))


def stuck(label, users, stack):
    """A sentence about the mailboxes that are not done, with the ends of the logs."""
    rows = ['%s: %s %s' % (user.name, user.state, user.account.get('message', ''))
            for user in users if user.is_alive()]
    return '%s: not done after %g s: %s%s' % (label, PHASE_SECONDS, '; '.join(rows),
                                              log_tails(stack))


def log_tails(stack):
    return ''.join('\nThe end of the log of %s:\n%s' % (process.name, process.log_tail())
                   for process in stack.processes if process.name not in ('zeo', 'slowlink'))


# -- after ----------------------------------------------------------------------------------------

def report(server, stack, alone, with_workers, in_request):
    """Print the table; DemoFailed when a count disagrees."""
    on_server = mailsite.counts_on_server(server)
    in_zodb = mailsite.counts_in_zodb(stack.zeo_address, (WITH, WITHOUT))
    rows = [('mailboxes', len(in_zodb[WITH]), len(in_zodb[WITHOUT])),
            ('messages on the server', total(on_server), total(on_server)),
            ('messages in the ZODB', total(in_zodb[WITH]), total(in_zodb[WITHOUT]))]
    for worker in workers(stack):
        rows.append(('calls run by %s' % worker.name, calls_of(worker)[1], None))
    rows.append(('calls taken up again after a kill',
                 sum(calls_of(worker)[2] for worker in workers(stack)), None))
    rows.append(('until all mail was there, s', round(with_workers.seconds, 1),
                 round(in_request.seconds, 1)))
    for name, runs in (('from a press to its answer', (with_workers.presses, in_request.presses)),
                       ("a page of the visitor's", (with_workers.pages, in_request.pages))):
        rows.append(('%s, median ms' % name, *map(median_ms, runs)))
        rows.append(('%s, worst ms' % name, *map(worst_ms, runs)))
    rows.append(("the visitor's pages", len(with_workers.pages), len(in_request.pages)))
    say('')
    for line in table(('with workers', 'in the request'), rows):
        say('  ' + line)
    say('')
    say('The visitor alone, before: median %d ms, worst %d ms. Both runs went through the same '
        'link.' % (median_ms(alone), worst_ms(alone)))
    problems = [problem for folder in (WITH, WITHOUT)
                for problem in differences(folder, on_server, in_zodb[folder])]
    if problems:
        raise DemoFailed('The counts disagree: %s.' % '; '.join(problems))
    say('Every folder of every mailbox holds as many messages as the server has.')


def differences(folder, on_server, in_zodb):
    for user, wanted in sorted(on_server.items()):
        found = in_zodb.get(user, {})
        for name in sorted(set(wanted) | set(found)):
            if wanted.get(name, 0) != found.get(name, 0):
                yield '%s/box_%s, %s: %d on the server, %d in the ZODB' % (
                    folder, user, name, wanted.get(name, 0), found.get(name, 0))


def total(counts):
    return sum(sum(folders.values()) for folders in counts.values())


def calls_of(worker):
    """(accepted, ended, accepted again) as the worker's log has them."""
    log = worker.log_path.read_text('utf-8', 'replace')
    attempts = re.findall(r'call \S+ accepted \(attempt (\d+)\)', log)
    ended = re.findall(r'call \S+ (?:resolved in|failed)', log)
    return len(attempts), len(ended), len(re.findall(r'call \S+ is taken up again', log))


def median_ms(seconds):
    return round(1000 * statistics.median(seconds))


def worst_ms(seconds):
    return round(1000 * max(seconds))


def keep_running(server, stack):
    """With KEEP=1: say where everything is, and wait for Ctrl-C."""
    if not os.environ.get('KEEP'):
        return
    user, password = next(iter(USERS.items()))
    say('')
    say('It is left running (KEEP=1) until you press Ctrl-C:')
    say('  ZMI          %s/manage   login %s, password %s' % (stack.zope_url, *ADMIN))
    say('  a mailbox    %s/%s/portal_webmail/box_%s/manage_main   login %s, password %s'
        % (stack.zope_url, WITH, user, user, password))
    say('  IMAP server  %s port %d   the same logins and passwords as the mailboxes'
        % (server.host, server.port))
    say('  logs         %s' % stack.log_dir)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say('\nStopping.')


def say(text):
    print(text, flush=True)


def stop_on_signals():
    """TERM and HUP end us as Ctrl-C does, so that everything is stopped."""
    def interrupted(signum, frame):
        raise KeyboardInterrupt
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, interrupted)


if __name__ == '__main__':
    sys.exit(main())
