"""What real servers answer where they do not complete a request, and what has to come of it.

The bodies are in the form of each provider's documentation and of bug reports; names and numbers in
them are made up.
"""

import dataclasses
from typing import Any, Literal

from tests.policies.chatserver import reply

Response = tuple[int, dict[str, str], Any]
GOOD = reply("go left")
_CHAT = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Responses to one message, and what has to come of them.

    Attributes:
        provider: whose words they are.
        name: what happens.
        responses: in order; after them the server answers well.
        ends: the completion's finish reason, or `error`.
        said: a part of the reason or the error.
        sent: requests that are sent.
        waited: seconds that are waited for the server, None: some.
        prompt: prompt tokens that are counted.
        generated: generated tokens that are counted.
        estimated: responses whose tokens are estimated.
    """

    provider: str
    name: str
    responses: list[Response]
    ends: Literal["stop", "length", "context", "quit", "error"] = "stop"
    said: str = ""
    sent: int = 1
    waited: float | None = 0.0
    prompt: int = 0
    generated: int = 0
    estimated: int = 0

    def __str__(self) -> str:
        return f"{self.provider}: {self.name}"


def error(status: int, message: str, *, headers: dict | None = None, **fields: Any) -> Response:
    """An error in OpenAI's envelope."""
    return status, headers or {}, {"error": {"message": message, **fields}}


def bare(status: int, **fields: Any) -> Response:
    """A JSON object without an envelope."""
    return status, {}, fields


def page(status: int, title: str) -> Response:
    """A web page."""
    return status, {}, f"<!DOCTYPE html><html><head><title>{title}</title></head></html>"


def answer(message: dict[str, Any], finish: str | None = "stop", **usage: Any) -> Response:
    """A completion with this message."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    return 200, {}, {**_CHAT, "choices": [choice], "usage": usage or None}


def busy(provider: str, name: str, response: Response, waited: float | None) -> Case:
    """A rate limit, after whose end the request is sent again."""
    return Case(
        provider=provider,
        name=name,
        responses=[response, GOOD],
        sent=2,
        waited=waited,
        prompt=10,
        generated=2,
    )


def full(provider: str, name: str, response: Response) -> Case:
    """A conversation that does not fit: said at once, and nothing is paid for."""
    return Case(provider=provider, name=name, responses=[response], ends="context")


def refused(provider: str, name: str, response: Response, said: str, **ends: Any) -> Case:
    """A request that is not to be sent again."""
    return Case(provider=provider, name=name, responses=[response], ends="error", said=said, **ends)


def again(provider: str, name: str, response: Response, **counts: int) -> Case:
    """A failure after which the request is sent again."""
    prompt, generated = counts.get("prompt", 0), counts.get("generated", 0)
    return Case(
        provider=provider,
        name=name,
        responses=[response, GOOD],
        sent=2,
        waited=None,
        prompt=10 + prompt,
        generated=2 + generated,
    )


def silent(provider: str, name: str, response: Response, said: str, tokens: int) -> Case:
    """An answer without a text, which is asked for once more; both are paid for."""
    return Case(
        provider=provider,
        name=name,
        responses=[response, response],
        ends="quit",
        said=said,
        sent=2,
        prompt=20,
        generated=2 * tokens,
    )


_GEMINI_QUOTA = {
    "code": 429,
    "message": "You exceeded your current quota, please check your plan and billing details. For "
    "more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n"
    "* Quota exceeded for metric: generate_content_free_tier_requests, limit: 10\n"
    "Please retry in 34.074824224s.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
    ],
}

RATE_LIMITS = [
    busy(
        "OpenAI",
        "a long wait in seconds",
        error(
            429, "Rate limit reached", code="rate_limit_exceeded", headers={"Retry-After": "180"}
        ),
        180.0,
    ),
    busy(
        "OpenAI",
        "a wait in milliseconds",
        error(429, "Rate limit reached", headers={"Retry-After-Ms": "1500", "Retry-After": "2"}),
        1.5,
    ),
    busy(
        "OpenAI",
        "a wait in words",
        error(
            429,
            "Rate limit reached for m in organization org-1 on tokens per min (TPM): Limit 30000, "
            "Used 29500, Requested 1200. Please try again in 1m26.4s. Visit "
            "https://platform.openai.com/account/rate-limits to learn more.",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        86.4,
    ),
    busy(
        "OpenAI",
        "a short wait in words",
        error(429, "Rate limit reached. Please try again in 310ms.", code="rate_limit_exceeded"),
        0.31,
    ),
    busy(
        "Azure",
        "a wait in words",
        error(429, "Requests have exceeded call rate limit. Please retry after 20 seconds."),
        20.0,
    ),
    busy(
        "Anthropic",
        "rate_limit_error",
        error(
            429,
            "This request would exceed your organization's rate limit of 50 requests per minute. "
            "Please reduce the prompt length or the maximum tokens requested, or try again later.",
            type="rate_limit_error",
            headers={"Retry-After": "41"},
        ),
        41.0,
    ),
    busy("Gemini", "RetryInfo in a list", (429, {}, [{"error": _GEMINI_QUOTA}]), 34.0),
    busy(
        "Gemini",
        "exhausted, without a time",
        (
            429,
            {},
            [
                {
                    "error": {
                        "code": 429,
                        "message": "Resource has been exhausted (e.g. check quota).",
                        "status": "RESOURCE_EXHAUSTED",
                    }
                }
            ],
        ),
        2.0,
    ),
    busy(
        "OpenRouter",
        "the provider's limit inside a 200",
        error(
            200,
            "Provider returned error",
            code=429,
            metadata={"raw": "m is temporarily rate-limited upstream. Please retry shortly."},
        ),
        2.0,
    ),
    busy(
        "Groq",
        "a wait in words inside a 200",
        error(200, "Rate limit reached. Please try again in 7.66s.", type="rate_limit_error"),
        7.66,
    ),
    busy("TGI", "overloaded", bare(429, error="Model is overloaded", error_type="overloaded"), 2.0),
    busy(
        "llama.cpp",
        "still loading",
        error(503, "Loading model", code=503, type="unavailable_error"),
        2.0,
    ),
    busy("a gateway", "a page with a wait", (429, {"Retry-After": "7"}, "<html>slow</html>"), 7.0),
]

FULL_CONTEXTS = [
    full(
        "OpenAI",
        "a code",
        error(400, "Your input exceeds the limit", code="context_length_exceeded"),
    ),
    full(
        "OpenAI",
        "in words",
        error(
            400,
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in "
            "300012 tokens. Please reduce the length of the messages.",
            type="invalid_request_error",
            code=None,
        ),
    ),
    full(
        "vLLM",
        "prompt and completion",
        bare(
            400,
            object="error",
            message="This model's maximum context length is 4096 tokens. However, you requested "
            "4608 tokens (4096 in the messages, 512 in the completion). Please reduce the length "
            "of the messages or completion.",
            type="BadRequestError",
            param=None,
            code=400,
        ),
    ),
    full(
        "vLLM",
        "no room for the completion",
        error(
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum "
            "context length is 4096 tokens and your request has 3900 input tokens "
            "(512 > 4096 - 3900).",
            type="BadRequestError",
            code=400,
        ),
    ),
    full(
        "vLLM",
        "the decoder's prompt",
        error(
            400,
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096. "
            "Make sure that `max_model_len` is no smaller than the number of text tokens.",
            type="BadRequestError",
            code=400,
        ),
    ),
    full(
        "SGLang",
        "input",
        bare(
            400,
            object="error",
            message="The input (61709 tokens) is longer than the model's context length "
            "(40960 tokens).",
            type="BadRequestError",
            param=None,
            code=400,
        ),
    ),
    full(
        "SGLang",
        "input above the pool",
        bare(
            400,
            object="error",
            message="Input length (160062 tokens) exceeds the maximum allowed length "
            "(59862 tokens).",
            code=400,
        ),
    ),
    full(
        "llama.cpp",
        "a type of its own",
        error(
            400,
            "the request exceeds the available context size, try increasing it",
            code=400,
            type="exceed_context_size_error",
            n_prompt_tokens=14429,
            n_ctx=8192,
        ),
    ),
    full(
        "llama.cpp",
        "inside a 200",
        error(
            200,
            "the request exceeds the available context size. try increasing the context size or "
            "enable context shift",
            code=500,
            type="exceed_context_size_error",
        ),
    ),
    full(
        "llama.cpp",
        "a server error",
        error(500, "context shift is disabled", code=500, type="server_error"),
    ),
    full(
        "llama.cpp",
        "the batch",
        error(
            500,
            "input is too large to process. increase the physical batch size",
            code=500,
            type="server_error",
        ),
    ),
    full(
        "llama-cpp-python",
        "window",
        error(400, "Requested tokens (2285) exceed context window of 2048"),
    ),
    full(
        "TGI",
        "inputs and new tokens",
        bare(
            422,
            error="Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
            "Given: 4000 `inputs` tokens and 512 `max_new_tokens`",
            error_type="validation",
        ),
    ),
    full(
        "TGI",
        "inputs",
        bare(
            422,
            error="Input validation error: `inputs` must have less than 2048 tokens. Given: 2222",
            error_type="validation",
        ),
    ),
    full(
        "Anthropic",
        "prompt",
        error(
            400,
            "prompt is too long: 213462 tokens > 200000 maximum",
            code="invalid_request_error",
            type="invalid_request_error",
        ),
    ),
    full(
        "Anthropic",
        "prompt and max_tokens",
        error(
            400,
            "input length and `max_tokens` exceed context limit: 199900 + 512 > 200000, decrease "
            "input length or `max_tokens` and try again",
            type="invalid_request_error",
        ),
    ),
    full(
        "Gemini",
        "in a list",
        (
            400,
            {},
            [
                {
                    "error": {
                        "code": 400,
                        "message": "The input token count (1200001) exceeds the maximum number of "
                        "tokens allowed (1048576).",
                        "status": "INVALID_ARGUMENT",
                    }
                }
            ],
        ),
    ),
    full(
        "OpenRouter",
        "endpoint",
        error(
            400,
            "This endpoint's maximum context length is 131072 tokens. However, you requested about "
            "140000 tokens (139488 of text input, 512 in the output). Please reduce the length of "
            'either one, or use the "middle-out" transform to compress your prompt automatically.',
            code=400,
        ),
    ),
    full(
        "OpenRouter",
        "the provider's words",
        error(
            200,
            "Provider returned error",
            code=400,
            metadata={
                "raw": f"{'-' * 600} prompt is too long: 9 tokens > 8 maximum",
                "provider_name": "Anthropic",
            },
        ),
    ),
    full("Bedrock", "input", error(400, "Input is too long for requested model.")),
    full(
        "xAI",
        "prompt length",
        bare(
            400,
            code="Client specified an invalid argument",
            error="This model's maximum prompt length is 131072 but the request contains 537812 "
            "tokens.",
        ),
    ),
]

REFUSALS = [
    refused(
        "OpenAI",
        "a reasoning model's temperature",
        error(
            400,
            "Unsupported value: 'temperature' does not support 0.0 with this model. Only the "
            "default (1) value is supported.",
            type="invalid_request_error",
            param="temperature",
            code="unsupported_value",
        ),
        "to leave it out: temperature=None",
    ),
    refused(
        "OpenAI",
        "a reasoning model's stop",
        error(
            400,
            "Unsupported parameter: 'stop' is not supported with this model.",
            param="stop",
            code="unsupported_parameter",
        ),
        "answered 400: Unsupported parameter",
    ),
    refused(
        "Anthropic",
        "two sampling fields",
        error(
            400,
            "`temperature` and `top_p` cannot both be specified for this model. Please use only "
            "one.",
            type="invalid_request_error",
        ),
        "temperature=None or top_p=None",
    ),
    refused(
        "OpenAI",
        "a cap above the model's",
        error(
            400,
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, "
            "whereas you provided 100000.",
            type="invalid_request_error",
            param="max_tokens",
        ),
        "max_new_tokens=None",
    ),
    refused(
        "TGI",
        "a field of another type",
        (
            422,
            {"Content-Type": "text/plain"},
            "Failed to deserialize the JSON body into the target type: seed: invalid type",
        ),
        "seed=None",
    ),
    refused(
        "OpenAI",
        "an empty account",
        error(
            429,
            "You exceeded your current quota, please check your plan and billing details.",
            type="insufficient_quota",
            code="insufficient_quota",
        ),
        "has no credit left",
    ),
    refused(
        "OpenRouter",
        "an empty account",
        error(402, "Insufficient credits. Add more using https://openrouter.ai/credits", code=402),
        "has no credit left",
    ),
    refused(
        "Anthropic",
        "an empty account",
        error(400, "Your credit balance is too low to access the Anthropic API."),
        "has no credit left",
    ),
    refused(
        "OpenAI",
        "a wrong key",
        error(401, "Incorrect API key provided: sk-1.", code="invalid_api_key"),
        "refuses the key in $OPENAI_API_KEY",
    ),
    refused(
        "Gemini",
        "a wrong key",
        (400, {}, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid."}}]),
        "refuses the key",
    ),
    refused(
        "OpenRouter",
        "a wrong key inside a 200",
        error(200, "No auth credentials found", code=401),
        "refuses the key",
    ),
    refused(
        "vLLM",
        "another model",
        error(404, "The model `m` does not exist.", type="NotFoundError", code=404),
        "has no model 'm'",
    ),
    refused("FastAPI", "another path", bare(404, detail="Not Found"), "is base_url right?"),
    refused("a web site", "a page", page(200, "Welcome"), "is base_url right?"),
    refused("a web site", "a page that is missing", page(404, "Not here"), "is base_url right?"),
    refused("a web site", "a sign-in page", page(403, "Sign in"), "a web page ('Sign in')"),
    refused("a web site", "a text", (200, {"Content-Type": "text/plain"}, "OK"), "not JSON"),
    refused("a web site", "other JSON", (200, {}, ["hello"]), "is base_url right?"),
    refused("vLLM", "another endpoint", bare(200, object="list", data=[]), "is base_url right?"),
    refused(
        "FastAPI",
        "a field that it does not know",
        bare(422, detail=[{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no"}]),
        "seed=None",
    ),
    refused(
        "Azure",
        "a filtered prompt",
        error(
            400,
            "The response was filtered due to the prompt triggering Azure OpenAI's content "
            "management policy.",
            code="content_filter",
        ),
        "filtered the conversation",
    ),
    refused(
        "OpenRouter",
        "moderation",
        error(
            403,
            "m requires moderation on OpenRouter. Your input was flagged for violence.",
            code=403,
            metadata={"reasons": ["violence"]},
        ),
        "filtered the conversation",
    ),
    refused(
        "OpenAI",
        "a filtered answer",
        answer({"content": "I wou"}, "content_filter", prompt_tokens=10, completion_tokens=2),
        "'content_filter'",
        prompt=10,
        generated=2,
    ),
    refused(
        "OpenAI",
        "a wait above max_wait_s",
        error(429, "Please try again in 7h12m.", code="rate_limit_exceeded"),
        "raise it",
    ),
]

FAILURES = [
    again("OpenAI", "a server error", error(500, "The server had an error", type="server_error")),
    again("Anthropic", "overloaded", error(529, "Overloaded", type="overloaded_error")),
    again(
        "Anthropic", "overloaded inside a 200", error(200, "Overloaded", type="overloaded_error")
    ),
    again("OpenRouter", "no code inside a 200", error(200, "Internal Server Error")),
    again("OpenRouter", "a code inside a 200", error(200, "Bad gateway", code=502)),
    again("OpenRouter", "no choices", (200, {}, {**_CHAT, "choices": [], "usage": None})),
    again("OpenRouter", "null choices", (200, {}, {**_CHAT, "choices": None})),
    again(
        "OpenRouter",
        "an error in a choice, paid for",
        (
            200,
            {},
            {
                **_CHAT,
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "error",
                        "message": {"role": "assistant", "content": "I wou"},
                        "error": {"code": 502, "message": "Upstream went away"},
                    }
                ],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            },
        ),
        prompt=7,
        generated=3,
    ),
    again("vLLM", "engine dead", bare(500, object="error", message="EngineCore died", code=500)),
    again("a gateway", "a JSON text", (503, {}, ["no healthy upstream"])),
    again("a gateway", "a page", page(502, "502 Bad Gateway")),
    again("a gateway", "a text", (504, {"Content-Type": "text/plain"}, "upstream timed out")),
    again("a gateway", "a slow request", error(504, "The request took too long to process")),
    again("a gateway", "half an answer", (200, {"Content-Type": "application/json"}, '{"id": "x')),
]

SILENCES = [
    silent(
        "vLLM",
        "reasoning alone",
        answer(
            {"content": None, "reasoning_content": "Left or right?"},
            "length",
            prompt_tokens=10,
            completion_tokens=512,
            total_tokens=522,
        ),
        "reasoning alone",
        512,
    ),
    silent(
        "Ollama",
        "an empty text beside reasoning",
        answer(
            {"content": "", "reasoning": "Left or right?"},
            prompt_tokens=10,
            completion_tokens=5,
        ),
        "reasoning alone",
        5,
    ),
    silent(
        "OpenAI",
        "a cap spent on reasoning",
        answer(
            {"content": "", "refusal": None},
            "length",
            prompt_tokens=10,
            completion_tokens=512,
            total_tokens=522,
            completion_tokens_details={"reasoning_tokens": 512},
        ),
        "max_new_tokens=",
        512,
    ),
    silent(
        "Gemini",
        "no content, reasoning in the total alone",
        answer({}, "length", prompt_tokens=10, completion_tokens=0, total_tokens=74),
        "no text",
        64,
    ),
    silent(
        "SGLang",
        "a tool call",
        answer(
            {
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "click", "arguments": '{"name": "buy now"}'},
                    }
                ],
            },
            "tool_calls",
            prompt_tokens=10,
            completion_tokens=9,
        ),
        "a tool call",
        9,
    ),
    silent(
        "vLLM",
        "blanks",
        answer({"content": "\n\n"}, prompt_tokens=10, completion_tokens=1),
        "no text",
        1,
    ),
]

ANSWERS = [
    Case(
        provider="vLLM",
        name="silent once",
        responses=[
            answer({"content": None}, prompt_tokens=10, completion_tokens=4, total_tokens=14),
            GOOD,
        ],
        sent=2,
        prompt=20,
        generated=6,
    ),
    Case(
        provider="OpenAI",
        name="a refusal in words",
        responses=[
            answer(
                {"content": None, "refusal": "I cannot help with that."},
                prompt_tokens=10,
                completion_tokens=6,
            )
        ],
        prompt=10,
        generated=6,
    ),
    Case(
        provider="Mistral",
        name="content in parts",
        responses=[
            answer(
                {
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                        {"type": "text", "text": "go left"},
                    ]
                },
                prompt_tokens=10,
                completion_tokens=6,
            )
        ],
        prompt=10,
        generated=6,
    ),
    Case(
        provider="llama.cpp",
        name="no usage",
        responses=[answer({"content": "go left"})],
        prompt=2,  # "hello", five bytes
        generated=2,
        estimated=1,
    ),
    Case(
        provider="TGI",
        name="null counts",
        responses=[
            answer(
                {"content": "go left"},
                "eos_token",
                prompt_tokens=None,
                completion_tokens=None,
                total_tokens=None,
                prompt_tokens_details=None,
            )
        ],
        prompt=2,
        generated=2,
        estimated=1,
    ),
    Case(
        provider="Gemini",
        name="one count is missing",
        responses=[answer({"content": "go left"}, prompt_tokens=10, total_tokens=31)],
        prompt=10,
        generated=21,
    ),
    Case(
        provider="vLLM",
        name="cut off",
        responses=[answer({"content": "I think"}, "length", prompt_tokens=10, completion_tokens=2)],
        ends="length",
        prompt=10,
        generated=2,
    ),
    Case(
        provider="Anthropic",
        name="the window was full while it spoke",
        responses=[
            answer(
                {"content": "I thi"},
                "model_context_window_exceeded",
                prompt_tokens=10,
                completion_tokens=2,
            )
        ],
        ends="context",
        prompt=10,
        generated=2,
    ),
    Case(
        provider="Azure",
        name="the cap by its newer name",
        responses=[
            error(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead.",
                type="invalid_request_error",
                param="max_tokens",
                code="unsupported_parameter",
            ),
            GOOD,
        ],
        sent=2,
        prompt=10,
        generated=2,
    ),
]

CASES = [*RATE_LIMITS, *FULL_CONTEXTS, *REFUSALS, *FAILURES, *SILENCES, *ANSWERS]
