"""The tab "Calls" of a manager: what waits, runs and has ended; one call in full.

Pages read; what changes something is a POST. Nothing of a call's values is made here:
they are shown as they are written.

Imports: permissions, forgery, interfaces, deferred, clock, listing, showing.
"""

from urllib.parse import quote
from urllib.parse import urlencode

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from zExceptions import BadRequest
from zExceptions import NotFound
from ZPublisher import zpublish

from .. import clock
from .. import listing
from .. import permissions
from .. import showing
from ..deferred import is_there
from ..forgery import action
from ..forgery import Page
from ..interfaces import FAILED
from ..interfaces import FINAL_STATES
from ..interfaces import STATES


#: Calls on a page.
PAGE = 50

#: Calls that are looked at for a page: a list by plugin or user loads each that does not fit.
LOOK_MOST = 2_000

#: Calls that a call waits for which its page names: an aggregate may have a thousand members.
AWAITED_MOST = 50

BADGES = {'new': 'secondary', 'accepted': 'primary', 'callback': 'info', 'resolved': 'success',
          'failed': 'danger', 'cancelled': 'warning', 'expired': 'warning'}

#: Ages a person may purge by: label, hours.
AGES = (('any age', 0), ('an hour', 1), ('a day', 24), ('a week', 24 * 7), ('a month', 24 * 30))


class CallPages:
    """The pages; a part of the manager."""

    security = ClassSecurityInfo()

    _calls_page = Page('../www/calls', globals(), __name__='calls')
    _call_page = Page('../www/call', globals(), __name__='call')

    @zpublish
    @security.protected(permissions.ViewManagementScreens)
    def manage_calls(self, REQUEST, state='', plugin='', user='', start='',
                     manage_tabs_message=None):
        """A page of calls, newest first in each state."""
        if not all(isinstance(text, str) for text in (state, plugin, user, start)):
            raise BadRequest('Each field is a text, and is there once.')
        found, last = listing.search(
            self.queue, state if state in STATES else None, plugin.strip() or None,
            user.strip() or None, start or None, PAGE + 1, LOOK_MOST)
        asked = {'state': state, 'plugin': plugin, 'user': user}
        older = further = None
        if len(found) > PAGE:
            older = urlencode({**asked, 'start': found[PAGE - 1].id})
        elif last is not None:
            further = urlencode({**asked, 'start': last.id})
        return self._calls_page(
            rows=[row_of(deferred) for deferred in found[:PAGE]], asked=asked, older=older,
            further=further, look_most=f'{LOOK_MOST:,}',
            states=STATES, final_states=sorted(FINAL_STATES), ages=AGES, badges=BADGES,
            counts=(self.lenNewCalls(), self.lenAcceptedCalls(), self.queue.length_failed()),
            manage_tabs_message=manage_tabs_message)

    @zpublish
    @security.protected(permissions.ViewManagementScreens)
    def manage_call(self, REQUEST, id='', manage_tabs_message=None):
        """One call in full."""
        deferred = self._shown_call(id)
        return self._call_page(
            call=row_of(deferred), facts=facts_of(deferred), attempts=attempts_of(deferred),
            failure=deferred.failure, badges=BADGES, manage_tabs_message=manage_tabs_message)

    def _shown_call(self, id):
        try:
            return self.getDeferred(id)
        except KeyError:  # its sentence names the id, and Zope shows errors unescaped
            raise NotFound('There is no such call; results are dropped in time.') from None

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_cancelCall(self, REQUEST, id=''):
        """Cancel one call."""
        self._shown_call(id)
        done = self.cancel(id)
        return self._back_to_call(REQUEST, id, 'The call is cancelled.' if done else
                                  'The call had ended already.')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_retryCall(self, REQUEST, id=''):
        """Have one call that failed run once more."""
        self._shown_call(id)
        try:
            done = self.retry(id)
        except KeyError as reason:  # it is in none of the managers here
            return self._back_to_call(REQUEST, id, reason.args[0])
        return self._back_to_call(REQUEST, id, 'The call will run once more.' if done else
                                  'Only a call that has failed can be run once more.')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_retryAll(self, REQUEST):
        """Have all calls that failed run once more."""
        most = listing.at_once()
        number = self.retry()
        return self._back_to_calls(
            REQUEST, f'{_calls(number)} will run once more.{_more(number, most)}', FAILED)

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_purge(self, REQUEST, state='', hours=''):
        """Drop ended calls of one state and of some age."""
        most = listing.at_once()
        try:
            number = self.purge(state, float(hours) * 3600)
        except (ValueError, TypeError):  # a field that is there twice is a list
            return self._back_to_calls(REQUEST, 'Choose a final state and an age; nothing was '
                                       'dropped.', state)
        return self._back_to_calls(
            REQUEST, f'{_calls(number)} dropped.{_more(number, most)}', state)

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_pause(self, REQUEST):
        """Have the worker claim nothing for now."""
        self.pause()
        return self._back_to_calls(REQUEST, 'Paused: what runs goes on, what is put waits.')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_resume(self, REQUEST):
        """End a pause."""
        self.resume()
        return self._back_to_calls(REQUEST, 'The worker takes calls again.')

    def _back_to_calls(self, REQUEST, message, state=''):
        query = urlencode({'state': state if state in STATES else '',
                           'manage_tabs_message': message})
        REQUEST.RESPONSE.redirect(f'{self.absolute_url()}/manage_calls?{query}')

    def _back_to_call(self, REQUEST, id, message):
        query = f'id={quote(id)}&manage_tabs_message={quote(message)}'
        REQUEST.RESPONSE.redirect(f'{self.absolute_url()}/manage_call?{query}')


InitializeClass(CallPages)


def row_of(deferred):
    """What a list shows of a call: {name: text}."""
    progress, failure = deferred.progress, deferred.failure
    return {
        'id': deferred.id, 'plugin': deferred.plugin, 'state': deferred.state,
        'user': str(deferred.caller), 'put_at': moment(deferred.put_at),
        'started_at': moment(deferred.started_at), 'ended_at': moment(deferred.ended_at),
        'attempts': deferred.attempt, 'percent': percent(progress),
        'progress': progress_text(progress),
        'failure': '' if failure is None else str(failure)[:200],
        'may_cancel': not deferred.ended, 'may_retry': deferred.state == FAILED}


def facts_of(deferred):
    """What its page shows of a call: [(label, text)]."""
    facts = [
        ('Arguments', showing.shown(deferred._arguments)),
        ('Caller', str(deferred.caller)),
        ('Put at', moment(deferred.put_at)),
        ('Begun at', moment(deferred.started_at)),
        ('Ended at', moment(deferred.ended_at)),
        ('Priority', str(deferred.priority)),
        ('Not before', moment(deferred.not_before or None)),
        ('Expires at', moment(deferred.expires_at)),
        ('Time-out', '' if deferred.timeout_seconds is None else
         f'{deferred.timeout_seconds:g} s'),
        ('Key', deferred.key or ''),
        ('Series', deferred.series or ''),
        ('Waits for', _awaited(deferred.after)),
        ('Memo', showing.shown(deferred._memo) if deferred._memo is not None else ''),
        ('Result', showing.shown(deferred._result) if deferred.state == 'resolved' else '')]
    return [(label, text) for label, text in facts if text]


def _awaited(calls):
    """The ids of those calls, if they are not too many to be read."""
    ids = [each.id for each in calls[:AWAITED_MOST] if is_there(each)]
    more = len(calls) - AWAITED_MOST
    return ', '.join(ids) + (f' and {more:,} more' if more > 0 else '')


def attempts_of(deferred):
    """[(number, begun, ended, outcome)] as texts, oldest first."""
    return [(attempt.number, moment(attempt.started_at), moment(attempt.ended_at),
             attempt.outcome or 'runs') for attempt in deferred.attempts]


def percent(progress):
    """How much of the call is done, 0 to 100, or None where nobody knows."""
    if progress is None or not progress.total:
        return None
    # Bounded first: of two numbers that can be told the one over the other may be infinity.
    return round(100 * max(0, min(1, progress.done / progress.total)))


def progress_text(progress):
    """How far the call is, for people."""
    if progress is None:
        return ''
    total = '' if progress.total is None else f' of {progress.total:g}'
    return f'{progress.done:g}{total} {progress.message}'.strip()


def moment(seconds):
    """A time for people, '' for none."""
    found = clock.as_datetime(seconds)
    return '' if found is None else found.strftime('%Y-%m-%d %H:%M:%S UTC')


def _more(number, most):
    return ' There may be more.' if number == most else ''


def _calls(number):
    return '1 call' if number == 1 else f'{number:,} calls'
