"""A headless Chromium, and a person who uses it.

Imports: selenium, when it starts.
"""

import shutil
import tempfile
from urllib.parse import quote
from urllib.parse import urlsplit


BROWSER, DRIVER = '/usr/bin/chromium', '/usr/bin/chromedriver'

#: A page that does not show what was waited for by then has failed. Seconds; the slowest thing
#: here, several hundred messages over a slow link, takes six.
LIMIT = 25

#: No sandbox: CI runs as root. The rest: nothing calls home, and no disk cache of another run.
_OPTIONS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
            '--disable-background-networking', '--disable-component-update', '--disable-sync',
            '--disable-dev-shm-usage', '--window-size=1280,900')


def missing():
    """What a browser test lacks here, as the reason of its skip; '' when all is there."""
    lacking = [path for path in (BROWSER, DRIVER) if shutil.which(path) is None]
    if not lacking:
        return ''
    return '%s missing (Debian: apt-get install chromium chromium-driver)' % ', '.join(lacking)


class Chromium:
    """One browser with a new profile; `with` starts and ends it. driver -- selenium's."""

    def __enter__(self):
        from selenium.webdriver import Chrome
        from selenium.webdriver import ChromeOptions
        from selenium.webdriver.chrome.service import Service
        self._profile = tempfile.mkdtemp(prefix='zasync-chromium-')
        options = ChromeOptions()
        options.binary_location = BROWSER
        for option in (*_OPTIONS, '--user-data-dir=%s' % self._profile):
            options.add_argument(option)
        try:
            # With the path given, selenium looks for no driver and downloads none.
            self.driver = Chrome(options=options, service=Service(DRIVER))
        except BaseException:
            shutil.rmtree(self._profile, ignore_errors=True)
            raise
        self.driver.set_page_load_timeout(LIMIT)
        return self

    def __exit__(self, *exc_info):
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)


class Person:
    """Somebody at the browser: goes to addresses, reads, fills in, presses, waits.

    Who logs in is asked by Zope and answered by Chromium. Each person has a host name of their
    own, which all mean this machine: Chromium keeps one login a host.
    """

    def __init__(self, driver, zope_url, name, password):
        self.driver = driver
        self.url = 'http://%s.localhost:%d' % (name, urlsplit(zope_url).port)
        self._login = '%s:%s@' % (quote(name), quote(password, safe=''))
        self._is_known = False

    def goes_to(self, path):
        """Open the page at a path from the root."""
        if not self._is_known:
            # As typed into Chromium's question. It keeps the login; an address with a password
            # in it stops Zope's own scripts, so the page is opened a second time without.
            self.driver.get(self.url.replace('://', '://' + self._login) + path)
            self.script_errors()
            self._is_known = True
        self.driver.get(self.url + path)

    def script_errors(self):
        """What went wrong in the pages' scripts since this was asked last."""
        return [entry['message'] for entry in self.driver.get_log('browser')
                if entry['source'] == 'javascript']

    def waits_for(self, condition, what):
        """Wait until `condition()` is true; -> its value. AssertionError with `what` if never."""
        from selenium.common.exceptions import TimeoutException
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait
        try:
            # A page that is just being replaced has not its elements, or no longer; Chromium
            # has several words for that.
            return WebDriverWait(self.driver, LIMIT, 0.05, [WebDriverException]).until(
                lambda driver: condition())
        except TimeoutException:
            raise AssertionError('%s did not happen within %d s. The page:\n%s' % (
                what, LIMIT, self.reads('body'))) from None

    def finds(self, selector):
        """The first element of a CSS selector."""
        return self.driver.find_element('css selector', selector)

    def finds_all(self, selector):
        return self.driver.find_elements('css selector', selector)

    def reads(self, selector):
        """The text that is seen of the first such element."""
        return self.finds(selector).text

    def reads_all(self, selector):
        return [element.text for element in self.finds_all(selector)]

    def fills_in(self, **fields):
        """Replace what is in form fields; by the fields' names."""
        for name, text in fields.items():
            field = self.finds('[name=%s]' % name)
            field.clear()
            field.send_keys(text)

    def presses(self, label):
        """Press the button of that label; returns when the next page is there."""
        from selenium.webdriver.support.expected_conditions import staleness_of
        button = self.finds('input[type=submit][value="%s"]' % label)
        button.click()
        self.waits_for(lambda: staleness_of(button)(self.driver)
                       and self.runs('return document.readyState') == 'complete',
                       'a new page after pressing "%s"' % label)

    def runs(self, script, *arguments):
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)
