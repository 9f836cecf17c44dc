"""Subscribes to trades, reconnects after every disconnect and resumes without loss."""

import asyncio
import random

import msgpack
import websockets

URL = "ws://127.0.0.1:8080/v1/feed"
TOPICS = ["trade:*"]


class Positions:
    """Last processed sequence number of each topic."""

    def __init__(self):
        self.epoch = None
        self.topics = {}  # topic -> (epoch, seq)

    def subscribe(self):
        request = {"op": "subscribe", "id": 1, "topics": TOPICS}
        if self.topics:
            request["from"] = {
                "epoch": self.epoch,
                "seqs": {topic: seq for topic, (_, seq) in self.topics.items()},
                "epochs": {topic: epoch for topic, (epoch, _) in self.topics.items() if epoch != self.epoch},
            }
        return request

    def control(self, message):
        op = message["op"]
        if op == "snapshot":
            self.topics[message["topic"]] = (message["epoch"], message["seq"])
        elif op == "gap":
            self.topics[message["topic"]] = (message["epoch"], message["to"])
            print(f"lost {message['n']} events of {message['topic']}: {message['cause']}", flush=True)
        elif op == "subscribed":
            topics = [topic for entry in message["ok"] for topic in entry.get("matched", [entry])]
            recovered = sum(topic.get("recovered", False) for topic in topics)
            print(f"subscribed to {len(topics)} topics, {recovered} resumed", flush=True)

    def event(self, event):
        topic = f"{event['ch']}:{event['sym']}"
        epoch, _ = self.topics[topic]
        self.topics[topic] = (epoch, event["seq"])


async def run():
    positions = Positions()
    backoff = 1.0
    while True:
        try:
            async with websockets.connect(URL, subprotocols=["tickcast.v1.msgpack"]) as feed:
                async for frame in feed:
                    message = msgpack.unpackb(frame)
                    if isinstance(message, list):
                        for event in message:
                            positions.event(event)
                            print(event["sym"], event["seq"], event["px"], flush=True)
                        continue
                    if message["op"] == "welcome":
                        await feed.send(msgpack.packb(positions.subscribe()))
                        positions.epoch = message["epoch"]
                        backoff = 1.0
                    elif message["op"] == "bye":
                        if not message["reconnect"]:
                            return
                        backoff = message.get("after_ms", 0) / 1000
                    else:
                        positions.control(message)
        except (OSError, websockets.exceptions.WebSocketException) as error:
            print("disconnected:", error, flush=True)
        await asyncio.sleep(random.uniform(0, backoff))
        backoff = min(max(2 * backoff, 1.0), 30.0)


asyncio.run(run())
