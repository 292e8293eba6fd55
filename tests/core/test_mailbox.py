"""The box of messages by itself: every message is in one place, and the oldest that fits is the one that was read."""

from ralph_rpc.model.commands import MessageVerb
from ralph_runner.core.mailbox import (
    Mail,
    Message,
    MessagePlace,
    answered,
    for_prompt,
    forwardable,
    in_pi,
    move,
    read_by_pi,
    receive,
    run_ended,
)


def message(
    id: str, place: MessagePlace = "held", verb: MessageVerb = "steer", text: str = "", maybe: bool = False
) -> Message:
    return Message(id, verb, text or f"text of {id}", place=place, maybe=maybe)


def places(mail: Mail) -> dict[str, MessagePlace]:
    return {m.id: m.place for m in mail}


def test_a_message_that_comes_twice_is_in_the_box_once() -> None:
    mail = receive(receive((), message("a")), message("b"))
    assert [m.id for m in mail] == ["a", "b"]
    assert receive(mail, message("a", text="other words")) == mail


def test_held_messages_are_forwarded_but_for_those_that_wait_for_a_prompt() -> None:
    later = Message("later", "followup", "x", next_only=True)
    mail = (message("a"), later, message("b", "sent"), message("c"))
    assert [m.id for m in forwardable(mail)] == ["a", "c"]
    assert [m.id for m in for_prompt(mail)] == ["a", "later", "c"]


def test_pi_has_what_was_sent_or_queued_and_nothing_else() -> None:
    assert in_pi((message("a", "sent"),)) and in_pi((message("a", "queued"),))
    assert not in_pi((message("a"), message("b", "read"), message("c", "prompt")))
    assert in_pi((message("a"), message("b", "queued")))


def test_only_the_named_messages_move() -> None:
    mail = move((message("a"), message("b"), message("c")), frozenset({"a", "c"}), "prompt")
    assert places(mail) == {"a": "prompt", "b": "held", "c": "prompt"}


def test_the_oldest_message_with_the_text_is_read_whatever_spaces_surround_it() -> None:
    mail = (message("a", "held", text="go"), message("b", "sent", text=" go\n"), message("c", "queued", text="go"))
    assert places(read_by_pi(mail, "go ", None)) == {"a": "held", "b": "read", "c": "queued"}


def test_a_text_that_pi_has_changed_belongs_to_the_queue_that_became_shorter() -> None:
    mail = (message("a", "queued"), message("b", "queued", "followup"), message("c", "queued", "followup"))
    assert places(read_by_pi(mail, "expanded", "followup")) == {"a": "queued", "b": "read", "c": "queued"}
    assert places(read_by_pi(mail, "expanded", "steer")) == {"a": "read", "b": "queued", "c": "queued"}
    assert read_by_pi(mail, "expanded", None) == mail
    assert read_by_pi(mail[:1], "expanded", "followup") == mail[:1]


def test_a_text_that_is_known_outweighs_the_queue_that_became_shorter() -> None:
    mail = (message("a", "queued"), message("b", "queued", "followup"))
    assert places(read_by_pi(mail, "text of b", "steer")) == {"a": "queued", "b": "read"}


def test_the_model_answers_to_what_was_read_and_to_what_headed_its_prompt() -> None:
    mail = (message("a", "read"), message("b", "queued"), message("c", "prompt"), message("d"), message("e", "sent"))
    left, delivered = answered(mail)
    assert [m.id for m in left] == ["b", "d", "e"] and [m.id for m in delivered] == ["a", "c"]


def test_after_a_run_all_are_held_and_those_that_the_model_may_have_seen_are_flagged() -> None:
    mail = (
        message("held"),
        message("sent", "sent"),
        message("queued", "queued"),
        message("read", "read"),
        message("prompt", "prompt"),
        message("again", "sent", maybe=True),
    )
    after = run_ended(mail)
    assert set(places(after).values()) == {"held"}
    assert {m.id: m.maybe for m in after} == {
        "held": False,
        "sent": False,
        "queued": False,
        "read": True,
        "prompt": True,
        "again": True,
    }
