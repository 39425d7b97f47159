"""Malformed protobuf is the client's mistake: INVALID_ARGUMENT and one line in the log, in every service."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError


class MalformedIsInvalid(grpc.aio.ServerInterceptor):  # type: ignore[misc] # grpc has no types
    """Parses requests itself: grpc.aio would answer UNKNOWN, with a traceback each."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The method's handler, fed with bytes."""
        handler = await continuation(details)
        if handler is None:
            return None

        async def parsed(data: bytes, context: grpc.aio.ServicerContext) -> Any:
            try:
                return handler.request_deserializer(data)
            except DecodeError:
                text = f"{details.method}: the request is not a protobuf message of the type wanted"
                logging.warning(text)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)

        async def all_parsed(stream: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            with contextlib.suppress(grpc.aio.AbortError):  # which has ended the call; the method sees its stream end
                async for data in stream:
                    yield await parsed(data, context)

        async def asked(request: Any, context: grpc.aio.ServicerContext) -> Any:
            return all_parsed(request, context) if handler.request_streaming else await parsed(request, context)

        async def one_answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            return await method(await asked(request, context), context)

        async def all_answers(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            async with contextlib.aclosing(method(await asked(request, context), context)) as answers:
                async for answer in answers:
                    yield answer

        kind = f"{_ARITY[handler.request_streaming]}_{_ARITY[handler.response_streaming]}"
        method = getattr(handler, kind)
        # a method that streams may write its answers itself instead (health's Watch)
        wrapped = all_answers if inspect.isasyncgenfunction(method) else one_answer
        return handler._replace(request_deserializer=None, **{kind: wrapped})


_ARITY = {False: "unary", True: "stream"}
