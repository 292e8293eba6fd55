"""Failure classes and delays: the texts are those that pi and its providers write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_runner.core.failures import (
    NO_ANSWER,
    RESTART_WINDOW_MS,
    WAITS,
    backoff,
    classify,
    recent,
    restart_delay,
    restarts_found,
    restarts_kept,
)
from tests.cpu import seconds_of

WALL = 1_700_000_000_000
HOUR = 3_600_000

CLASSES = {
    "billing": [
        "402 Insufficient Balance",
        '402: {"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}',
        "429 You exceeded your current quota, please check your plan and billing details.",
        '429: {"message":"You exceeded your current quota","code":"insufficient_quota"}',
        '400 {"error":{"message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing"}}',
        "402 This request requires more credits, or fewer max_tokens. You requested up to 64000 tokens",
        "403 Your team has either used all available credits or reached its monthly spending limit.",
        "400 Billing hard limit has been reached",
        "429 Your account is not active, please check your billing details on our website.",
        "400 Arrearage: Access denied, please make sure your account is in good standing. Overdue payment.",
        "Error 402: Payment Required",
        "400 You're out of extra usage. Add more at claude.ai/settings/usage and keep going.",
        "412 Account x is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices",
        "429 余额不足或无可用资源包,请充值。",
        "您的账户已欠费,请充值后重试",
        "403 BILLING_DISABLED: This API method requires billing to be enabled",
    ],
    "quota": [
        "You have hit your ChatGPT usage limit (plus plan). Try again in ~287 min.",
        "You've hit your limit · resets 2:30am (America/New_York)",
        "usage limit reached, come back later",
        "429 You exceeded your current quota, please check your plan and billing details. Please retry in 34.07s.",
        "429 RESOURCE_EXHAUSTED: Quota exceeded for metric generate_content_free_tier",
        "5-hour limit reached ∙ resets 6pm",
        "403 You have exceeded your premium request allowance for this month",
        "429 weekly limit reached",
        '429: {"message":"You\'ve hit your usage limit.","code":"rate_limit_exceeded"}',
        "You're out of extra usage · resets 3pm (UTC)",
        "Tokens per day limit exceeded - too many tokens processed.",
        "Your team has reached its limit, resets 12/01/2026 at 9:00 AM PST",
        "the limit will be lifted at 8pm",
        "400 not now, try again in 5 minutes",
        "429 已达到 5 小时的使用上限。您的限额将在 2026-11-30 06:00:00 重置。",
    ],
    "rate-limit": [
        "429 Rate limit reached",
        "429 Rate limit reached for gpt-5: Limit 3 / min. Please try again in 20s. Add a payment method at https://x/account/billing",
        '429 {"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your rate limit"}}',
        "Too Many Requests",
        "429 slow down",
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        "ThrottlingException: Too many tokens per day, please wait before trying again.",
        "429 您的账户已达到速率限制,请您控制请求频率",
    ],
    "auth": [
        "401 Incorrect API key provided",
        '401: {"message":"Incorrect API key provided","code":"invalid_api_key"}',
        '401 {"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}',
        "401 your quota of keys",
        "No API key found for anthropic.",
        "400 API key not valid. Please pass a valid API key.",
        "403 Forbidden",
        "400 Your API key was disabled",
        "OAuth token has expired",
    ],
    "refused": [
        "400 Invalid value for 'messages[3].content'",
        "418 I'm a teapot",
        "422 Unprocessable Entity: unknown field",
        "400 the server does not like this request",
        "Provider finish_reason: content_filter",
        "404 model not found",
        "The model `gpt-9` does not exist",
    ],
    "overloaded": [
        '529: {"message":"Overloaded"}',
        "500 scripted 500",
        "503 <html>no</html>",
        "The server had an error while processing",
    ],
    "network": [
        "terminated",
        "terminated: Body Timeout Error",
        "Connection error.: read ECONNRESET",
        "Request timed out.",
        "Stream ended without finish_reason",
        "Anthropic stream ended before message_stop",
        "Expected property name or '}' in JSON at position 1",
        "Connection closed.",
        "getaddrinfo ENOTFOUND api.example.com",
    ],
    "context": ["400 prompt is too long: 210000 tokens", "413 Request too large"],
    "other": ["something else", ""],
}


WORDED = {
    "billing": [
        'Mistral API error (402): {"detail":"no"}',
        '401: {"type":"error","error":{"type":"CreditsError","message":"No payment method. Add one at https://x/billing"}}',
        '401: {"type":"error","error":{"type":"MonthlyLimitError","message":"monthly spending limit of $20 reached"}}',
        '403: {"message":"Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys"}',
        "400 Third-party apps now draw from your extra usage, not your plan limits. Add more at claude.ai/settings/usage",
        '{"error":{"code":403,"message":"This API method requires billing to be enabled. Please enable billing, then retry."}}',
        "403 Your newly created team doesn't have any credits or licenses yet.",
        "400 Access denied, please make sure your account is in good standing.",
        "429 Your GLM Coding Plan package has expired and is temporarily unavailable.",
    ],
    "quota": [
        "You've hit your Opus limit · resets Dec 1, 12am (UTC)",
        "You're out of extra usage · resets Dec 3 at 3pm (UTC)",
        '429: {"type":"error","error":{"type":"GoUsageLimitError","message":"enough for today"}}',
        '403: {"message":"Key limit exceeded (daily limit). Manage it using https://openrouter.ai/settings/keys"}',
        'OpenAI API error (429): {"code":"subscription_sharing_usage_limit_exceeded"}\nCheck your ChatGPT usage: https://x',
        "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
    ],
    "rate-limit": [
        "OpenAI API error (429): {}",
        'Mistral API error (429): {"message":"Service tier capacity exceeded for this model."}',
        "Server requested 600s retry delay (max: 60s). 429 status code (no body)",
    ],
    "auth": [
        'OpenAI API error (403): {"message":"Country, region, or territory not supported"}',
        "ExpiredTokenException: The security token included in the request is expired",
        "Token is expired. To refresh this SSO session run 'aws sso login' with the corresponding profile.",
        "AccessDeniedException: You don't have access to the model with the specified model ID.",
        'OpenAI Codex token refresh failed (401): {"error":{"code":"refresh_token_reused"}}',
        'Anthropic token refresh request failed. details=Error: status=400; body={"error":"invalid_grant"}',
        "Provided authentication token is expired. Please try signing in again.",
        "Could not load the default credentials.",
        "Authentication Fails (no such user)",
    ],
    "refused": [
        'OpenAI API error (400): {"message":"Invalid schema for function"}',
        'Mistral API error (422): {"detail":"Extra inputs are not permitted"}',
        '403: {"message":"Input was flagged for moderation","code":403}',
        "Provider stopped with: SAFETY",
        "Validation error: Invocation of it with on-demand throughput isn’t supported. Retry your request with another.",
    ],
    "overloaded": [
        "Provider returned error",
        "Model stream error: The system encountered an unexpected error during processing. Try your request again.",
        "ModelNotReadyException: Model is not ready for inference.",
        "OpenAI API error (520): {}",
        "Server requested 120s retry delay (max: 60s). 503 status code (no body)",
    ],
    "network": [
        "WebSocket error",
        "stream disconnected before completion: stream closed before response.completed",
        "Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue.",
        "Http2 request did not get a response",
        "The pending stream has been canceled (caused by: )",
        "request to https://oauth2.googleapis.com/token failed, reason: ",
        '403 <!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title>',
    ],
    "context": [
        'github-copilot API error (413): {"message":"failed to parse request"}',
        "413 Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000",
        "429 Request too large for gpt-5 on tokens per min (TPM): Limit 30000, Requested 40000.",
        "400 request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it",
        "400 prompt token count of 140000 exceeds the limit of 128000",
    ],
}
"""What stands around a status, and words that decide against it."""


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in WORDED.items() for text in texts])
def test_a_text_has_its_class_whatever_stands_around_its_status(kind: str, text: str) -> None:
    failure = classify(text)
    assert (failure.kind, failure.fatal) == (kind, kind == "auth")


@pytest.mark.parametrize(
    "text",
    [
        "ResourceNotFoundException: This model version has reached the end of its life.",
        'OpenAI API error (404): {"code":"model_not_found"}',
        "Validation error: The provided model identifier is invalid.",
        "The 'gpt-9-codex' model is not supported when using Codex with a ChatGPT account.",
    ],
)
def test_a_model_that_is_not_to_be_had_is_for_a_person(text: str) -> None:
    failure = classify(text)
    assert (failure.kind, failure.fatal) == ("refused", True)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in CLASSES.items() for text in texts])
def test_a_text_has_its_class(kind: str, text: str) -> None:
    failure = classify(text)
    assert failure.kind == kind
    assert failure.fatal == (kind == "auth" or text.startswith(("404", "The model")))
    assert failure.message == text


def test_what_is_the_providers_fault_is_never_work() -> None:
    assert WAITS < NO_ANSWER
    assert {"refused", "auth", "empty"} <= NO_ANSWER


@given(
    st.text(max_size=3_000)
    | st.lists(st.sampled_from(["402 ", "quota", " limit", "billing", "1" * 400, "retry after "])).map("".join)
)
def test_no_text_raises_or_takes_long(text: str) -> None:
    assert seconds_of(lambda: classify(text)) < 0.02 + 0.001 * len(text) / 1000


def test_backoff_doubles_up_to_its_limit_with_jitter_down_to_half() -> None:
    assert [backoff(n, "network", 1.0) for n in (1, 2, 3, 20)] == [2_000, 4_000, 8_000, 600_000]
    assert backoff(1, "network", 0.0) == 1_000
    assert backoff(1, "quota", 1.0) == 60_000 and backoff(9, "quota", 1.0) == 1_800_000
    assert backoff(1, "billing", 1.0) == 60_000 and backoff(9, "billing", 0.0) == 900_000
    assert backoff(1, "rate-limit", 1.0) == 2_000 and backoff(20, "rate-limit", 1.0) == 1_800_000


def test_a_refused_key_is_no_empty_account_whatever_its_text_says_of_a_quota() -> None:
    failure = classify("401 your key has no quota for this model; see billing")
    assert (failure.kind, failure.fatal) == ("auth", True)


def test_the_backoff_of_the_first_failure_is_that_of_none() -> None:
    assert backoff(0, "overloaded", 1.0) == backoff(1, "overloaded", 1.0) == 2_000
    assert backoff(10_000, "overloaded", 0.5) == 450_000


def test_a_restart_waits_a_second_then_twice_as_long_up_to_a_minute() -> None:
    assert [restart_delay(n, 1.0) for n in (0, 1, 2, 3, 6, 7, 100)] == [
        1_000,
        1_000,
        2_000,
        4_000,
        32_000,
        60_000,
        60_000,
    ]
    assert restart_delay(1, 0.0) == 500


def test_a_restart_counts_for_ten_minutes() -> None:
    assert recent((0, 1, 500), RESTART_WINDOW_MS) == (0, 1, 500)
    assert recent((0, 1, 500), RESTART_WINDOW_MS + 1) == (1, 500)


def test_restarts_outlive_the_runner_and_the_boot_whose_clock_they_were_measured_with() -> None:
    kept = restarts_kept((1_000, 4_000), mono=5_000, wall_ms=WALL)
    assert kept == [WALL - 4_000, WALL - 1_000]
    # The next runner, two minutes later, on a machine that was booted a minute ago.
    assert restarts_found(kept, mono=60_000, wall_ms=WALL + 120_000) == (-64_000, -61_000)
    assert restarts_found(kept, mono=60_000, wall_ms=WALL + RESTART_WINDOW_MS - 2_000) == (60_000 - 599_000,)


def test_a_restart_in_the_future_has_just_been() -> None:
    assert restarts_found([WALL + HOUR], mono=60_000, wall_ms=WALL) == (60_000,)
