"""People with browsers: users who press a button of their mailbox, and a visitor who reads.

They speak HTTP; nothing here looks into the database. A user is a thread and does what the page
does: logs in, presses, and asks for the status until the work is done. The visitor is a process of
its own, since its answers are timed and forty users in one process wait for one another.

``python -m bench.people URL SECONDS`` is such a visitor, who reads a page that long after the last
one: it prints the seconds each took, in a line of its own, until its standard input ends.

Imports: nothing of ours.
"""

import subprocess
import sys
import threading
import time

import requests


#: Between two looks at the status of a mailbox under way, as its page does. Seconds.
WATCH_SECONDS = 1.0

#: The visitor reads a page this long after the last one. Seconds.
READING_SECONDS = 0.05

#: Longest wait for an answer. Seconds; in the request a synchronisation queues behind others.
ANSWER_SECONDS = 90.0


class User(threading.Thread):
    """One user: logs in, presses `button` of a mailbox and watches it until it is done.

    box_url -- of the mailbox. expected -- messages this press should bring. after_seconds -- of
    its start it presses.
    press_seconds -- from the press to the answer; None before.
    state, fetched, account -- of the last status: its state, messages fetched (when it is done:
        those expected; whether they are there is counted elsewhere), all of it.
    problem -- a sentence when something did not go as it should.
    """

    def __init__(self, name, password, box_url, button, expected, give_up, after_seconds=0.0):
        super().__init__(name=name, daemon=True)
        self.box_url = box_url
        self.button = button
        self.expected = expected
        self.press_seconds = None
        self.state, self.fetched, self.account = 'not asked', 0, {}
        self.problem = None
        self._give_up = give_up
        self._after_seconds = after_seconds
        self._is_in = False
        self._http = requests.Session()
        self._http.auth = (name, password)

    def log_in(self):
        """Have the page of the mailbox in the browser; ValueError when it is refused."""
        answer = self._http.get(self.box_url + '/manage_main', timeout=ANSWER_SECONDS)
        if answer.status_code != 200:
            raise ValueError('the page of the mailbox answers %d' % answer.status_code)
        self._is_in = True

    def run(self):
        try:
            if not self._is_in:
                self.log_in()
            self._give_up.wait(self._after_seconds)
            self._press()
            self._watch()
        except (requests.RequestException, ValueError) as error:
            self.problem = '%s: %s' % (type(error).__name__, error)
        finally:
            self._http.close()

    def _press(self):
        started = time.perf_counter()
        answer = self._http.post('%s/%s' % (self.box_url, self.button), timeout=ANSWER_SECONDS,
                                 allow_redirects=False)
        self.press_seconds = time.perf_counter() - started
        if answer.status_code not in (200, 302, 303):
            raise ValueError('%s answers %d: %s' % (self.button, answer.status_code,
                                                    answer.text[:200]))

    def _watch(self):
        while not self._give_up.is_set():
            answer = self._http.get(self.box_url + '/manage_syncStatus', timeout=ANSWER_SECONDS)
            answer.raise_for_status()
            self.account = answer.json()
            self.state = self.account['state']
            # A run that is begun again after a crash counts from nought, though what it had
            # committed is there: at the end the whole is known.
            if self.state == 'running':
                self.fetched = self.account['counts'].get('fetched', 0)
            elif self.state == 'done':
                self.fetched = self.expected
            if self.state == 'failed':
                raise ValueError('it failed: %s' % self.account['reason'])
            if self.state == 'done':
                return
            self._give_up.wait(WATCH_SECONDS)


class Visitor:
    """Reads a page over and over and keeps the seconds each took.

    with Visitor(url) as visitor: ...; then visitor.seconds, visitor.problem
    """

    def __init__(self, url, reading_seconds=READING_SECONDS):
        self.url = url
        self.reading_seconds = reading_seconds
        self.seconds = []
        self.problem = None

    def __enter__(self):
        self._process = subprocess.Popen([sys.executable, '-m', 'bench.people', self.url,
                                          str(self.reading_seconds)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, name='visitor', daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exc_info):
        self._process.stdin.close()
        try:
            self._process.wait(ANSWER_SECONDS + 5)
        finally:
            self._process.kill()
            self._reader.join()
            self._process.stdout.close()

    def _read(self):
        for line in self._process.stdout:
            try:
                self.seconds.append(float(line))
            except ValueError:
                self.problem = line.strip()


def visit(url, reading_seconds):
    """Read that page over and over; print the seconds of each, or why there was none."""
    leaving = threading.Event()
    threading.Thread(target=_wait_for_end, args=(leaving,), daemon=True).start()
    with requests.Session() as http:
        while not leaving.is_set():
            started = time.perf_counter()
            try:
                answer = http.get(url, timeout=ANSWER_SECONDS)
                answer.raise_for_status()
            except requests.RequestException as error:
                print('the visitor got no page: %s' % error, flush=True)
                return
            print(time.perf_counter() - started, flush=True)
            leaving.wait(reading_seconds)


def _wait_for_end(leaving):
    sys.stdin.read()
    leaving.set()


if __name__ == '__main__':
    visit(sys.argv[1], float(sys.argv[2]))
