"""Writes `expert.jsonl`: `python -m examples.rooms.record > examples/rooms/expert.jsonl`.

The expert is hasty: what is not in one of the first three rooms it walks past, and grasps at
nothing in the next one. It stands in for somebody's agent, of which a file of chats is left.
"""

import json

from examples.rooms import env


def main() -> None:
    """Print a chat for each training task."""
    rooms = env.Rooms()
    for task in rooms.tasks("train"):
        game = rooms.game()
        seen, reward = [game.reset(task)], 0.0
        walk = game.place + ("hard" in task.tags)
        said = ["next"] * walk + ["take"]
        for action in said:
            result = game.step(action)
            seen.append(result.observation)
            reward += result.reward
        messages = [{"role": "user", "content": seen[0]}]
        for action, observation in zip(said, seen[1:], strict=True):
            messages.append({"role": "assistant", "content": action})
            messages.append({"role": "user", "content": observation})
        print(json.dumps({"id": task.id, "model": "hasty", "messages": messages, "reward": reward}))


if __name__ == "__main__":
    main()
