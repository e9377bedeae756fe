"""Messages in asyncio: an engine that echoes, and one that asks it a thousand things at a time."""

import argparse
import asyncio

import switchyard

QUESTIONS = 1000


async def main(fabric: str) -> None:
    loop = asyncio.get_running_loop()
    with (
        switchyard.Engine("server", fabric=fabric) as server,
        switchyard.Engine("client", fabric=fabric) as client,
    ):

        async def echo(sender: switchyard.PeerAddress, message: bytes) -> None:
            await server.send(sender, message.upper(), timeout=10)

        answers: dict[int, asyncio.Future[bytes]] = {}

        def take(_: switchyard.PeerAddress, message: bytes) -> None:
            number, text = message.split(b" ", 1)
            answers.pop(int(number)).set_result(text)  # messages are not ordered: the number says whose it is

        server.on_message(echo, loop=loop)
        client.on_message(take, loop=loop)

        async def ask(number: int, text: str) -> bytes:
            answer = answers[number] = loop.create_future()
            await client.send(server.address, f"{number} {text}".encode(), timeout=10)
            return await answer

        questions = asyncio.gather(*(ask(number, "hello") for number in range(QUESTIONS)))
        answered = await asyncio.wait_for(questions, timeout=30)
        print(f"{answered.count(b'HELLO')} answers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fabric", default="auto")
    asyncio.run(main(parser.parse_args().fabric))
