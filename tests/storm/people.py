"""The people of a storm: each a thread that sends one request after the other.

Imports: plan, site.
"""

import json
import threading

import requests

from tests.storm import plan
from tests.storm import site


#: An answer that takes longer is not waited for. Seconds.
ANSWER_SECONDS = 20.0

#: After a request that found nobody. Seconds.
BREATH_SECONDS = 0.3

#: Whose results callbacks that come late can be added to.
LATE_KINDS = frozenset(('plain', 'quick', 'slow', 'own'))

#: Of the calls that a person remembers, so many of the newest may be cancelled and so on.
RECENT = 8


class Crowd:
    """Everybody; known -- what their requests have put, as the answers told."""

    def __init__(self, seed, url_of, mean_pause, kinds):
        self._url_of = url_of
        self._stopping = threading.Event()
        self.known = []
        self._threads = []
        for user in site.USERS:
            for web in plan.WEBS:
                client = plan.Client(seed, f'{user}-{web}', mean_pause, kinds)
                self._threads.append(threading.Thread(
                    target=self._live, args=(client, user, web), daemon=True))

    def start(self):
        """Let them come."""
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Send them home, and wait for the last answer."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS)

    def put(self, user, web, *calls):
        """Send one request that puts these calls, in a thread of its own."""
        thread = threading.Thread(target=self._put, args=(
            user, web, {'calls': list(calls), 'fate': 'commit'}), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _live(self, client, user, web):
        mine, had_late = [], set()
        while not self._stopping.wait(client.pause()):
            request = client.request()
            if 'calls' in request:
                mine += self._put(user, web, request)
                continue
            [kind] = request
            theirs = [call for call in self.known[-50:] if call['user'] != user]
            for_late = [call for call in mine if call['kind'] in LATE_KINDS
                        and call['token'] not in had_late]
            chosen = {'cancel': mine, 'late': for_late, 'guess': theirs}[kind][-RECENT:]
            if chosen:
                call = client.choose(chosen)
                fields = {'manager': call['manager'], 'id': call['id']}
                if kind == 'late':
                    had_late.add(call['token'])
                    fields['token'] = call['token']
                self._send(user, web, kind, fields)

    def _put(self, user, web, request):
        answer = self._send(user, web, 'put', {'text': json.dumps({'user': user, **request})})
        if answer is None or answer.status_code != 200:
            return []
        # A call that joined another, or has run already, is nobody's to cancel.
        put = [call for call in answer.json() if call['manager'] and not call['joined']]
        self.known += put
        return put

    def _send(self, user, web, page, fields):
        try:
            return requests.post(f'{self._url_of(web)}/desk/{page}', auth=(user, site.PASSWORD),
                                 data=fields, timeout=ANSWER_SECONDS)
        except requests.RequestException:
            self._stopping.wait(BREATH_SECONDS)
            return None
