"""Credentials in one process: kept until they are due, one run of the program at a time, failures as exceptions."""

import asyncio
import copy
import os
import pickle
import signal
import threading
from datetime import datetime, timezone

import pytest

import dbx_rotator
from dbx_rotator import _credential, _program


def in_threads(number, call):
    """What each thread has got, or was refused."""
    results = [None] * number

    def run(index):
        try:
            results[index] = call()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    return threads, results


def joined(threads, results):
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results


def test_a_credential_has_all_that_a_login_takes_and_hides_its_password(stand_in):
    live = dbx_rotator.credential("orders")
    assert (live.password, live.user, live.host, live.port) == ("eyJ.first.token", "ada@example.com", "db.example", 5432)
    assert (live.connection, live.database) == ("orders", "databricks_postgres")
    assert live.expires_at == datetime(2099, 1, 2, 3, 4, 5, 123456, tzinfo=timezone.utc)
    for shown in (repr(live), str(live), f"{live}", f"{vars(_credential)['_kept']}"):
        assert "first" not in shown
    assert "orders" in repr(live) and "2099-01-02 03:04:05" in repr(live)
    for change in (lambda: setattr(live, "password", "x"), lambda: delattr(live, "password")):
        with pytest.raises(AttributeError):
            change()
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(live)


def test_it_is_kept_until_it_is_due_and_then_asked_for_again(stand_in, clock):
    assert dbx_rotator.credential("orders") is dbx_rotator.credential("orders")
    clock.now += 2399
    assert dbx_rotator.credential("orders").password == "eyJ.first.token"
    assert len(stand_in.runs()) == 1
    stand_in.answers(token="eyJ.second.token")
    clock.now += 1
    assert dbx_rotator.credential("orders").password == "eyJ.second.token"
    assert [run[0][1:] for run in stand_in.runs()] == [["token", "--json", "--min-valid", "30s", "orders"]] * 2


@pytest.mark.parametrize("left, pause", [(600, 15), (20, 5)])
def test_one_that_is_due_and_could_not_be_renewed_is_handed_out_for_a_while(stand_in, clock, left, pause):
    stand_in.answers(due_in_seconds=-60, expires_in_seconds=left)
    for _ in range(3):
        dbx_rotator.credential("orders", min_valid=1)
    clock.now += pause - 0.5
    dbx_rotator.credential("orders", min_valid=1)
    assert len(stand_in.runs()) == 1
    clock.now += 0.5
    dbx_rotator.credential("orders", min_valid=1)
    assert len(stand_in.runs()) == 2


def test_more_life_than_the_kept_one_has_is_asked_for(stand_in, clock):
    stand_in.answers(due_in_seconds=240, expires_in_seconds=300)
    dbx_rotator.credential("orders")
    dbx_rotator.credential("orders", min_valid=200)
    assert len(stand_in.runs()) == 1
    dbx_rotator.credential("orders", min_valid=600.2)
    assert stand_in.runs()[1][0][-2:] == ["601s", "orders"]
    # Shortly before its end it is not handed out either, even where it is not due.
    stand_in.answers(due_in_seconds=300, expires_in_seconds=300)
    dbx_rotator.forget()
    dbx_rotator.credential("orders")
    clock.now += 270
    dbx_rotator.credential("orders")
    assert len(stand_in.runs()) == 4


def test_many_threads_and_tasks_share_one_run(stand_in):
    stand_in.waits_for("go")
    threads, results = in_threads(20, lambda: dbx_rotator.credential("orders"))

    async def tasks():
        waiting = [asyncio.ensure_future(dbx_rotator.async_credential("orders")) for _ in range(20)]
        await asyncio.sleep(0)
        stand_in.await_runs(1)
        cancelled = waiting.pop()
        cancelled.cancel()
        stand_in.let_go("go")
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return await asyncio.gather(*waiting)

    got = asyncio.run(tasks()) + joined(threads, results)
    assert len(got) == 39 and {id(one) for one in got} == {id(got[0])}
    assert len(stand_in.runs()) == 1


def test_other_connections_do_not_wait(stand_in):
    stand_in.waits_for("go")
    threads, results = in_threads(1, lambda: dbx_rotator.credential("slow"))
    stand_in.await_runs(1)
    stand_in.answers()
    assert dbx_rotator.credential("orders").password == "eyJ.first.token"
    stand_in.let_go("go")
    joined(threads, results)
    assert len(stand_in.runs()) == 2


@pytest.mark.parametrize(
    "code, kind",
    [
        (64, dbx_rotator.ConfigurationError),
        (69, dbx_rotator.TemporaryError),
        (70, dbx_rotator.RotatorError),
        (75, dbx_rotator.TemporaryError),
        (77, dbx_rotator.SignInError),
        (78, dbx_rotator.ConfigurationError),
    ],
)
def test_a_failure_is_an_exception_with_code_and_hint_and_is_not_kept(stand_in, code, kind):
    stand_in.fails(code, "warning: a remark\nerror: it is\n  so\nhint: do that\n")
    with pytest.raises(kind) as raised:
        dbx_rotator.credential("orders")
    error = raised.value
    assert type(error) is kind
    assert (error.code, error.message, error.hint) == (code, "it is\n  so", "do that")
    assert "do that" in str(error)
    same = pickle.loads(pickle.dumps(error))
    assert (type(same), same.code, same.message, same.hint) == (kind, code, error.message, error.hint)
    stand_in.answers()
    assert dbx_rotator.credential("orders").password == "eyJ.first.token"


def test_those_who_wait_share_a_failure_and_each_has_its_own_exception(stand_in):
    stand_in.does("while not os.path.exists(here + '/go'): time.sleep(0.01)\nsys.exit('error: no')")
    threads, results = in_threads(8, lambda: dbx_rotator.credential("orders"))
    stand_in.await_runs(1)
    while sum(thread.is_alive() for thread in threads) < 8:
        pass
    stand_in.let_go("go")
    errors = joined(threads, results)
    assert {str(error) for error in errors} == {"no"} and len({id(error) for error in errors}) == 8


def test_whoever_is_interrupted_leaves_the_others_with_a_run_of_their_own(stand_in, monkeypatch):
    began, interrupt = threading.Event(), threading.Event()
    real = _program.output_of

    def interrupted(*words, **more):
        monkeypatch.setattr(_program, "output_of", real)
        began.set()
        interrupt.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(_program, "output_of", interrupted)
    first = in_threads(1, lambda: dbx_rotator.credential("orders"))
    assert began.wait(30)
    others = in_threads(3, lambda: dbx_rotator.credential("orders"))
    interrupt.set()
    assert isinstance(joined(*first)[0], KeyboardInterrupt)
    assert {one.password for one in joined(*others)} == {"eyJ.first.token"}


def test_what_was_forgotten_is_asked_for_again(stand_in):
    for name in ("orders", "archive"):
        dbx_rotator.credential(name)
    dbx_rotator.forget("orders")
    for name in ("orders", "archive"):
        dbx_rotator.credential(name)
    assert len(stand_in.runs()) == 3
    dbx_rotator.forget()
    dbx_rotator.credential("archive")
    assert len(stand_in.runs()) == 4


def test_a_child_process_has_what_was_kept_and_no_lock_of_its_parents_threads(stand_in):
    dbx_rotator.credential("orders")
    stand_in.waits_for("go")
    threads, results = in_threads(1, lambda: dbx_rotator.credential("slow"))
    stand_in.await_runs(2)
    stand_in.answers()
    with _credential._lock:
        child = os.fork()
        if child == 0:
            # One that waits for a lock of nobody's would wait for ever.
            signal.alarm(20)
            fine = dbx_rotator.credential("orders").password == dbx_rotator.credential("slow").password
            os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    stand_in.let_go("go")
    joined(threads, results)


def test_an_older_program_a_missing_one_and_a_name_that_is_an_option_are_told(stand_in, monkeypatch):
    stand_in.does("print(json.dumps({'version': 1, 'token': 'eyJ'}))")
    with pytest.raises(dbx_rotator.RotatorError, match="older than this package"):
        dbx_rotator.credential("orders")
    for name in ("", "--config=/x"):
        with pytest.raises(dbx_rotator.ConfigurationError):
            dbx_rotator.credential(name)
    monkeypatch.setattr(_program, "_found", None)
    monkeypatch.setattr(_program, "_candidates", list)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(dbx_rotator.NotInstalled, match="pip install"):
        dbx_rotator.credential("orders")


def test_what_a_program_says_that_is_no_answer_is_not_repeated(stand_in):
    stand_in.does("print('eyJ.secret.token')")
    with pytest.raises(dbx_rotator.RotatorError) as raised:
        dbx_rotator.credential("orders")
    assert "secret" not in str(raised.value)


def test_arguments_for_libraries(stand_in):
    expected = {
        "host": "db.example",
        "port": 5432,
        "dbname": "databricks_postgres",
        "user": "ada@example.com",
        "password": "eyJ.first.token",
        "sslmode": "require",
    }
    assert dbx_rotator.connect_kwargs("orders") == expected
    assert asyncio.run(dbx_rotator.async_connect_kwargs("orders")) == expected
    assert dbx_rotator.django_database("orders", CONN_MAX_AGE=60, OPTIONS={"pool": True}) == {
        "ENGINE": "dbx_rotator.django",
        "NAME": "",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {"pool": True, "dbx_rotator": "orders"},
    }
    # TLS for those that are not libpq: as strict as its modes are.
    import ssl

    from dbx_rotator._libraries import tls_context

    root = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    for mode, file, checks_name, verifies in [
        ("require", None, False, ssl.CERT_NONE),
        ("require", root, False, ssl.CERT_REQUIRED),
        ("verify-ca", root, False, ssl.CERT_REQUIRED),
        ("verify-full", "system", True, ssl.CERT_REQUIRED),
        (None, None, None, None),
    ]:
        if file == root and not os.path.exists(root):
            continue
        stand_in.answers(sslmode=mode, sslrootcert=file)
        dbx_rotator.forget()
        context = tls_context(dbx_rotator.credential("orders"))
        assert mode is None and context is None or (context.check_hostname, context.verify_mode) == (checks_name, verifies)
