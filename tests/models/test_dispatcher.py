"""A dispatcher in histories nobody thought of: workers die and return, managers leave."""

from hypothesis.stateful import run_state_machine_as_test

from .dispatchermachine import DispatcherMachine


def test_a_dispatcher_its_managers_and_their_workers_do_what_the_model_says():
    run_state_machine_as_test(DispatcherMachine)
