"""`abort` ends streams by the names of their requests."""

import asyncio
import threading

from byzerllm.utils.client import ByzerLLM, EventName

CONFIG = {"temperature": 0, "max_length": 50_000}


def test_who_reads_an_aborted_stream_sees_it_end(llm, endless):
    llm.deploy(endless, udf_name="long")
    told = []
    llm.add_event_callback(EventName.AFTER_CALL_MODEL, lambda client, model, found: told.append(found))
    stream = llm.stream_chat_oai("hello", model="long", llm_config=CONFIG)
    first = next(stream)
    request_id = first.meta.extra_info["request_id"]
    # Another client of the process, from another thread, while this one reads.
    aborted = []
    thread = threading.Thread(target=lambda: aborted.append(ByzerLLM().abort(request_id, "long")))
    thread.start()
    texts = [item.text for item in stream]
    thread.join()
    assert aborted == [True] and len(texts) < 50_000 and first.meta.finish_reason == "abort"
    assert told[0][0]["metadata"]["request_id"] == request_id
    del stream, first
    assert not llm.abort(request_id), "it has ended"
    assert not llm.abort("nobody")


def test_streams_of_event_loops_end_too(llm, endless):
    llm.deploy(endless, udf_name="long")

    async def read():
        count = 0
        async for _, meta in llm.async_stream_chat_oai("hello", model="long", llm_config=CONFIG):
            count += 1
            if count == 3:
                assert llm.abort(meta.extra_info["request_id"])
        return count

    assert 3 <= asyncio.run(read()) < 50_000
