"""The OpenAI-compatible server (兼容 OpenAI RESTful API 服务), asked by OpenAI's own package.

Start the server first: `python -m byzerllm.utils.client.entrypoints.openai.api_server`.

Changed: the server's address is that of the variable BASE_URL.
"""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("BASE_URL", "http://127.0.0.1:8000/v1"), api_key="xxxx")

chat_completion = client.chat.completions.create(
    model="wenxin_chat", messages=[{"role": "user", "content": "写一个排序算法"}], stream=False
)

print(chat_completion.choices[0].message.content)

stream = client.chat.completions.create(
    model="wenxin_chat", messages=[{"role": "user", "content": "写一个排序算法"}], stream=True
)

for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="")
