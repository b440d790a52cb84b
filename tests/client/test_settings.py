"""Settings of a zasync.conf at work in a real worker."""

from tests.client import jobs


SETTINGS = '''
max-result-size 1KB
<plugin aware>
  handler tests.client.jobs.who_runs
  zope-aware on
</plugin>
<plugin plain>
  handler os.path.join
</plugin>
<plugin again>
  handler tests.client.jobs.fails_at_first
  attempts 2
  retry-delay 0
  retry-on OSError
</plugin>
<plugin never_again>
  handler tests.client.jobs.fails_at_first
  attempts 2
  retry-delay 0
  retry-on ValueError
</plugin>
<plugin zope_call>
  timeout 0.2
</plugin>
'''


def test_settings_of_plugins_and_results_do_what_they_say(site, tmp_path):
    site.stack.start_worker('zam1', '/zam1', settings=SETTINGS)
    site.become('boss')
    aware, plain = site.put('aware'), site.put('plain', 'a', 'b')
    again = site.put('again', str(tmp_path / 'again'))
    never = site.put('never_again', str(tmp_path / 'never'))
    large = site.put('plain', 'x' * 2000, 'y')
    site.ended(aware, plain, again, never, large)
    assert (aware.result, plain.result) == (('boss', ''), 'a/b')
    assert again.result == str(tmp_path / 'again')
    assert never.failure.type_name.endswith('ConnectionError')
    assert large.failure.type_name.endswith('BadResult')
    assert 'the limit is 1,024' in large.failure.text


def test_a_section_for_a_built_in_plugin_gives_it_a_time_out(site, tmp_path):
    site.stack.start_worker('zam1', '/zam1', settings=SETTINGS)
    slow = site.put('zope_call', jobs.wait_for_file, str(tmp_path / 'go'), 3.0)
    site.ended(slow)
    assert slow.failure.type_name.endswith('TimedOut')
