"""The worlds of files, messages, posts and tickets."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from recall.evaluation.bfcl.training.plan import Draw, Turn, calls


class Files:
    """A folder with files and folders; the user stays in it, or goes into a folder and back."""

    backend = "GorillaFileSystem"

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._root = draw.name()
        self._files = {f"{draw.name()}.{draw.rng.choice(('txt', 'md', 'csv'))}": self._content() for _ in range(3)}
        self._folders = [draw.name() for _ in range(2)]
        self._began = dict(self._files), list(self._folders)

    def _content(self) -> str:
        return "\n".join(self._draw.text() for _ in range(self._draw.rng.randint(2, 5)))

    def config(self) -> dict[str, Any]:
        """See `World`."""
        files, folders = self._began
        contents: dict[str, Any] = {name: {"type": "file", "content": content} for name, content in files.items()}
        contents |= {name: {"type": "directory", "contents": {}} for name in folders}
        return {"root": {self._root: {"type": "directory", "contents": contents}}}

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """See `World`; what needs a file is left out where none is left."""
        always = (self._write, self._make_folder, self._in_folder)
        return (
            (*always, self._keep, self._rename, self._put_away, self._count, self._extract) if self._files else always
        )

    def _file(self) -> str:
        return self._draw.rng.choice(sorted(self._files))

    def _write(self) -> Turn:
        name, text = f"{self._draw.name()}.txt", self._draw.text()
        self._files[name] = text
        said = self._draw.say(
            f"Create a file {name} here that says exactly: {text}",
            f"I need a new file called {name}. Its content: '{text}'.",
        )
        return Turn(said, calls(("touch", {"file_name": name}), ("echo", {"content": text, "file_name": name})))

    def _make_folder(self) -> Turn:
        name = self._draw.name()
        self._folders.append(name)
        said = self._draw.say(f"Please make a folder named {name}.", f"Set up a new directory '{name}' right here.")
        return Turn(said, calls(("mkdir", {"dir_name": name})))

    def _in_folder(self) -> Turn:
        folder, name = self._draw.rng.choice(self._folders), f"{self._draw.name()}.md"
        said = self._draw.say(
            f"Go into {folder}, create an empty file {name} there, and come back.",
            f"There should be an empty {name} inside {folder}; return to this folder afterwards.",
        )
        return Turn(said, calls(("cd", {"folder": folder}), ("touch", {"file_name": name}), ("cd", {"folder": ".."})))

    def _keep(self) -> Turn:
        name, copied = self._file(), f"{self._draw.name()}.bak"
        self._files[copied] = self._files[name]
        said = self._draw.say(f"Keep a copy of {name} as {copied}.", f"Duplicate {name}; the copy is called {copied}.")
        return Turn(said, calls(("cp", {"source": name, "destination": copied})))

    def _rename(self) -> Turn:
        name, fresh = self._file(), f"{self._draw.name()}.log"
        self._files[fresh] = self._files.pop(name)
        said = self._draw.say(f"{name} should be called {fresh} from now on.", f"Rename {name} to {fresh}.")
        return Turn(said, calls(("mv", {"source": name, "destination": fresh})))

    def _put_away(self) -> Turn:
        name, folder = self._file(), self._draw.name()
        del self._files[name]
        said = self._draw.say(
            f"Put {name} into a new folder {folder}.", f"Make a directory {folder} and move {name} there."
        )
        return Turn(said, calls(("mkdir", {"dir_name": folder}), ("mv", {"source": name, "destination": folder})))

    def _count(self) -> Turn:
        name, fresh = self._file(), f"{self._draw.name()}.txt"
        number = str(len(self._files[name].splitlines()))
        self._files[fresh] = number
        said = self._draw.say(
            f"How many lines does {name} have? Write just the number into a new file {fresh}.",
            f"Count the lines of {name} and save the number, nothing else, as {fresh}.",
        )
        steps = (
            ("wc", {"file_name": name, "mode": "l"}),
            ("touch", {"file_name": fresh}),
            ("echo", {"content": number, "file_name": fresh}),
        )
        return Turn(said, calls(*steps))

    def _extract(self) -> Turn:
        name, fresh = self._file(), f"{self._draw.name()}.txt"
        line = self._draw.rng.choice(self._files[name].splitlines())
        word = next((word for word in line.split() if word[:1].isupper() and word != "The"), line)
        self._files[fresh] = line
        said = self._draw.say(
            f"Find the line of {name} with '{word}' in it and save that line as {fresh}.",
            f"One line of {name} mentions {word}; put that line, as it is, into a new file {fresh}.",
        )
        steps = (
            ("grep", {"file_name": name, "pattern": word}),
            ("touch", {"file_name": fresh}),
            ("echo", {"content": line, "file_name": fresh}),
        )
        return Turn(said, calls(*steps))


class Messages:
    """A workspace of people who write to each other."""

    backend = "MessageAPI"

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        first = draw.rng.randrange(100, 800)
        self._users = {draw.person(): f"USR{first + number}" for number in range(4)}
        self._me, *self._others = self._users
        self._seed, self._in = draw.rng.randrange(10**6), draw.rng.random() < 0.5
        self._count = first + len(self._users) - 1
        self._began = dict(self._users), self._count, self._users[self._me] if self._in else None
        self._sent: list[str] = []

    def config(self) -> dict[str, Any]:
        """See `World`."""
        users, count, current = self._began
        return {
            "random_seed": self._seed,
            "user_count": count,
            "user_map": users,
            "inbox": [],
            "message_count": 0,
            "current_user": current,
        }

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """See `World`; one has to be logged in for most."""
        if not self._in:
            return (self._login,)
        return (self._send, self._send_all, self._invite, *((self._take_back,) if self._sent else ()))

    def _login(self) -> Turn:
        self._in = True
        said = self._draw.say(f"I am {self._me}; log me in.", f"Log in to the workspace as {self._me}.")
        return Turn(
            said, calls(("get_user_id", {"user": self._me}), ("message_login", {"user_id": self._users[self._me]}))
        )

    def _send(self) -> Turn:
        name, text = self._draw.rng.choice(self._others), self._draw.text()
        self._sent.append(name)
        said = self._draw.say(f"Write to {name}: '{text}'", f"Send {name} this message, word by word: {text}")
        steps = (
            ("get_user_id", {"user": name}),
            ("send_message", {"receiver_id": self._users[name], "message": text}),
        )
        return Turn(said, calls(*steps))

    def _send_all(self) -> Turn:
        text, names = self._draw.text(), self._draw.rng.sample(self._others, 2)
        self._sent += names
        said = self._draw.say(
            f"First {names[0]}, then {names[1]} should get the message '{text}'.",
            f"Send '{text}' to {names[0]} and after that to {names[1]}.",
        )
        asked = [("get_user_id", {"user": name}) for name in names]
        sent = [("send_message", {"receiver_id": self._users[name], "message": text}) for name in names]
        return Turn(said, calls(*asked, *sent))

    def _invite(self) -> Turn:
        name, text = self._draw.person(), self._draw.text()
        self._count += 1
        self._users[name] = f"USR{self._count:03}"
        self._others.append(name)
        self._sent.append(name)
        said = self._draw.say(
            f"Add {name} to the contacts and greet them with '{text}'",
            f"{name} is new: make them a contact, then send them '{text}'.",
        )
        steps = (
            ("add_contact", {"user_name": name}),
            ("send_message", {"receiver_id": self._users[name], "message": text}),
        )
        return Turn(said, calls(*steps))

    def _take_back(self) -> Turn:
        name = self._draw.rng.choice(sorted(set(self._sent)))
        self._sent.remove(name)
        said = self._draw.say(
            f"Delete the last message that I sent to {name}.", f"Take back what I last wrote to {name}."
        )
        steps = (("get_user_id", {"user": name}), ("delete_message", {"receiver_id": self._users[name]}))
        return Turn(said, calls(*steps))


class Posts:
    """A short-message site with a few accounts."""

    backend = "TwitterAPI"

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._me, self._password = draw.name(), draw.name()
        self._others = [draw.name() for _ in range(3)]
        self._first = draw.rng.randrange(20, 90)
        self._posts = {
            self._first + n: {
                "id": self._first + n,
                "username": who,
                "content": draw.text(),
                "tags": [],
                "mentions": [],
            }
            for n, who in enumerate(self._others)
        }
        self._following = self._others[:1]
        self._in, self._retweeted = draw.rng.random() < 0.5, set[int]()
        self._began = copy.deepcopy(self._posts), list(self._following), self._in

    def config(self) -> dict[str, Any]:
        """See `World`."""
        posts, following, authenticated = self._began
        return {
            "username": self._me,
            "password": self._password,
            "authenticated": authenticated,
            "tweets": {str(number): post for number, post in posts.items()},
            "comments": {},
            "retweets": {},
            "following_list": following,
            "tweet_counter": self._first + len(posts),
        }

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """See `World`."""
        return (self._post, self._comment, self._retweet, self._follow) if self._in else (self._login,)

    def _login(self) -> Turn:
        self._in = True
        said = self._draw.say(
            f"Log in as {self._me} with the password {self._password}.",
            f"My account is {self._me}, the password {self._password}. Please sign me in.",
        )
        return Turn(said, calls(("authenticate_twitter", {"username": self._me, "password": self._password})))

    def _post(self) -> Turn:
        text, tag = self._draw.text(), f"#{self._draw.name()}"
        said = self._draw.say(
            f"Post '{text}' with the tag {tag}.", f"Share this as a post tagged {tag}, exactly so: {text}"
        )
        return Turn(said, calls(("post_tweet", {"content": text, "tags": [tag]})))

    def _about(self) -> tuple[int, str]:
        number = self._draw.rng.choice(sorted(self._posts))
        return number, str(self._posts[number]["username"])

    def _comment(self) -> Turn:
        (number, who), text = self._about(), self._draw.text()
        said = self._draw.say(
            f"Comment '{text}' under the post by {who}.", f"Under what {who} posted, leave the comment: {text}"
        )
        steps = (
            ("get_user_tweets", {"username": who}),
            ("comment", {"tweet_id": number, "comment_content": text}),
        )
        return Turn(said, calls(*steps))

    def _retweet(self) -> Turn:
        number, who = self._about()
        if number in self._retweeted:
            return self._post()
        self._retweeted.add(number)
        said = self._draw.say(f"Retweet the post by {who}.", f"Pass on what {who} posted as a retweet.")
        return Turn(said, calls(("get_user_tweets", {"username": who}), ("retweet", {"tweet_id": number})))

    def _follow(self) -> Turn:
        follow, leave = self._draw.name(), self._draw.rng.choice(self._following)
        self._following.append(follow)
        self._following.remove(leave)
        said = self._draw.say(
            f"Follow {follow} and stop following {leave}.", f"I would rather follow {follow} than {leave} from now on."
        )
        steps = (("follow_user", {"username_to_follow": follow}), ("unfollow_user", {"username_to_unfollow": leave}))
        return Turn(said, calls(*steps))


class Tickets:
    """A desk with tickets."""

    backend = "TicketAPI"

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._me, self._password = draw.name(), draw.name()
        first = draw.rng.randrange(300, 900)
        self._open: list[dict[str, Any]] = [
            {
                "id": first + n,
                "title": f"{draw.name()} {draw.rng.choice(('is stuck', 'is noisy', 'is missing'))}",
                "description": draw.text(),
                "status": "Open",
                "priority": draw.rng.randint(1, 5),
                "created_by": self._me,
            }
            for n in range(3)
        ]
        self._in = draw.rng.random() < 0.5
        self._began = copy.deepcopy(self._open), first + 3, self._me if self._in else None

    def config(self) -> dict[str, Any]:
        """See `World`."""
        queue, counter, current = self._began
        return {"ticket_queue": queue, "ticket_counter": counter, "current_user": current}

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """See `World`."""
        if not self._in:
            return (self._login,)
        return (self._create, *((self._resolve, self._close, self._edit) if self._open else ()))

    def _login(self) -> Turn:
        self._in = True
        said = self._draw.say(
            f"Log me in at the desk: user {self._me}, password {self._password}.",
            f"I am {self._me} (password {self._password}); sign in to the ticket system.",
        )
        return Turn(said, calls(("ticket_login", {"username": self._me, "password": self._password})))

    def _create(self) -> Turn:
        title, text, priority = f"{self._draw.name()} is broken", self._draw.text(), self._draw.rng.randint(2, 5)
        said = self._draw.say(
            f"Open a ticket '{title}' of priority {priority} with the description '{text}'.",
            f"I need a ticket. Title: {title}. Description: {text}. Priority {priority}.",
        )
        return Turn(said, calls(("create_ticket", {"title": title, "description": text, "priority": priority})))

    def _take(self) -> dict[str, Any]:
        return self._open.pop(self._draw.rng.randrange(len(self._open)))

    def _resolve(self) -> Turn:
        ticket, text = self._take(), self._draw.text()
        said = self._draw.say(
            f"Resolve my ticket '{ticket['title']}' with the resolution '{text}'.",
            f"The ticket called {ticket['title']} can be resolved. Resolution: {text}",
        )
        resolved = {"ticket_id": ticket["id"], "resolution": text}
        return Turn(said, calls(("get_user_tickets", {}), ("resolve_ticket", resolved)))

    def _close(self) -> Turn:
        ticket = self._take()
        said = self._draw.say(f"Close ticket {ticket['id']}.", f"Ticket number {ticket['id']} can be closed.")
        return Turn(said, calls(("close_ticket", {"ticket_id": ticket["id"]})))

    def _edit(self) -> Turn:
        ticket = self._draw.rng.choice(self._open)
        priority = ticket["priority"] % 5 + 1
        ticket["priority"] = priority
        said = self._draw.say(
            f"Set the priority of my ticket '{ticket['title']}' to {priority}.",
            f"'{ticket['title']}' should have priority {priority}.",
        )
        edited = {"ticket_id": ticket["id"], "updates": {"priority": priority}}
        return Turn(said, calls(("get_user_tickets", {}), ("edit_ticket", edited)))
