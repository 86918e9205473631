"""Makes sessions, clips and shares, then lets schemathesis loose on them once per kind of token; prints a table."""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
ROOT = "/livekit-replay"
# what ends the things that others still need gets things of its own
ENDING = {
    f"DELETE {ROOT}/clips/{{id}}",
    f"DELETE {ROOT}/sessions/{{id}}",
    f"DELETE {ROOT}/admin/users/{{id}}",
    f"POST {ROOT}/stop/{{sessionId}}",
    f"POST {ROOT}/admin/sessions/{{id}}/stop",
}
PEOPLE = ["anna", "bert", "carl"]
REFUSED = ("none", "expired", "garbage", "of-another-secret")


def arguments():
    parser = argparse.ArgumentParser()
    for name in ["base", "simulator", "tools", "program", "work"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only")
    return parser.parse_args()


def ask(url, method="GET", body=None, token=None):
    """Status and answer."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return answer.status, told(text)
    except urllib.error.HTTPError as error:
        return error.code, told(error.read())


def told(text):
    """JSON as what it says, anything else (a list of pictures) as text."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text.decode("utf-8", "replace")


def part(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def signed_again(token, secret, **changes):
    """The token with other claims or another key."""
    head, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    text = f"{head}.{part({**claims, **changes})}"
    mark = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"


class Stage:
    def __init__(self, given):
        self.given = given
        self.api = given.base + ROOT
        self.clips, self.doomed, self.sessions, self.urls = [], [], [], set()
        self.shares, self.segments, self.jobs = [], [], []
        self.document = ask(given.base + "/openapi.json")[1]
        self.round = 0

    def mint(self, user, *more):
        command = [self.given.program, "token", "mint", user, "--lifetime", "86400", *more]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def make(self):
        """A session, clips of it and shares of them for each of our people; the share of screen goes on."""
        self.round += 1
        self.put_back()
        made = []
        for user in PEOPLE:
            token = self.mint(user, "--community", "red:moderator")
            room = f"room-{user}-{self.round}"
            share = {"room": room, "identity": user, "width": 320, "height": 180}
            self.expect(ask(self.given.simulator + "/sim/publish", "POST", share), 200)
            ask(f"{self.api}/stop", "POST", None, token)
            start = {"roomName": room, "communityId": "red"}
            status, session = ask(f"{self.api}/start", "POST", start, token)
            if status != 201:
                print(f"no session for {user}: {status} {session}", file=sys.stderr)
                continue
            made.append((token, session["id"]))
        for token, session in made:
            self.wait_for_media(token, session)
            for number in range(4):
                capture = {"sessionId": session, "durationSeconds": 2, "title": f"clip {number}"}
                status, clip = ask(f"{self.api}/capture", "POST", capture, token)
                if status not in (201, 202):
                    print(f"no clip: {status} {clip}", file=sys.stderr)
                    continue
                (self.doomed if number == 3 else self.clips).append(clip.get("clip", clip)["id"])
            self.sessions.append(session)
        for token, session in made:
            self.look(token, session)

    def put_back(self):
        """What earlier requests may have changed for our people."""
        root = self.mint("root", "--admin")
        admin = f"{self.api}/admin"
        for user in [*PEOPLE, "member", "moderator"]:
            ask(f"{admin}/users/{user}/quota", "PATCH", {"quotaBytes": 50 * 2**30}, root)
        for community in ["red", "blue"]:
            usual = {"enabled": True, "maxConcurrent": 20}
            ask(f"{admin}/community/{community}/config", "PATCH", usual, root)
            for role in ["member", "moderator", "admin"]:
                ask(f"{admin}/community/{community}/roles/{role}", "DELETE", None, root)

    def expect(self, answer, status):
        if answer[0] != status:
            raise SystemExit(f"expected {status}: {answer}")
        return answer[1]

    def wait_for_media(self, token, session):
        for _ in range(300):
            _, shown = ask(f"{self.api}/sessions/{session}", token=token)
            if (shown.get("buffer") or {}).get("endsAt"):
                return
            time.sleep(0.2)
        raise SystemExit(f"no media in {session}")

    def look(self, token, session):
        """Collects every address that answers name: signed links, segments, pictures."""
        _, own = ask(f"{self.api}/my-clips", token=token)
        for clip in own["clips"]:
            for _ in range(300):
                _, shown = ask(f"{self.api}/clips/{clip['id']}", token=token)
                if shown.get("status") != "processing":
                    break
                time.sleep(0.1)
            self.collect(shown)
            status, share = ask(f"{self.api}/clips/{clip['id']}/share", "POST", {"shareOption": "link"}, token)
            if status < 300:
                self.collect(share)
                _, shares = ask(f"{self.api}/clips/{clip['id']}/shares", token=token)
                ids = re.findall(r'"id": "([^"]+)"', json.dumps(shares))
                self.shares += [(clip["id"], one) for one in ids]
        _, shown = ask(f"{self.api}/sessions/{session}", token=token)
        self.collect(shown)
        _, strip = ask(f"{self.api}/sessions/{session}/filmstrip", token=token)
        self.collect(strip)
        for url in list(self.urls):
            if "/preview.m3u8" in url:
                self.collect(self.text(url))

    def text(self, url):
        try:
            with urllib.request.urlopen(urllib.parse.urljoin(self.given.base, url), timeout=60) as answer:
                base = answer.geturl()
                lines = answer.read().decode().splitlines()
                return [urllib.parse.urljoin(base, line) for line in lines if line and line[0] != "#"]
        except urllib.error.HTTPError:
            return []

    def collect(self, answer):
        for found in re.findall(r'[^"\s\\#]*/livekit-replay/[^"\s\\#]+', json.dumps(answer)):
            self.urls.add(found)

    def feed(self):
        """Things that exist, by operation."""
        operations = {}
        people = [*PEOPLE, "member", "moderator", "root"]
        for template, item in self.document["paths"].items():
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)) + "$")
            named = []
            for url in self.urls:
                split = urllib.parse.urlsplit(url)
                match = pattern.match(split.path)
                if match and "{" in template:
                    query = dict(urllib.parse.parse_qsl(split.query))
                    named.append({"path": match.groupdict(), "query": query})
            for method in item:
                operation = f"{method.upper()} {template}"
                known = list(named)
                ids = self.ids(operation, template, people)
                known += [{"path": one, "query": {}} for one in ids]
                if known:
                    operations[operation] = known
        bodies = {
            "sessionId": self.sessions,
            "roomName": [f"room-{user}-{self.round}" for user in PEOPLE],
            "communityId": ["red", "blue"],
            "durationSeconds": [1, 2, 3.5],
            "permissions": [["CAPTURE_REPLAY"], []],
            "shareOption": ["link"],
            "visibility": ["private", "community", "public", "unlisted"],
        }
        queries = {"communityId": ["red", "blue", "*"], "durationSeconds": [1, 2]}
        return {"operations": operations, "bodies": bodies, "queries": queries}

    def ids(self, operation, template, people):
        ending = operation in ENDING
        if "/clips/{id}/shares/{shareId}" in template:
            return [{"id": clip, "shareId": share} for clip, share in self.shares]
        if template.startswith(f"{ROOT}/clips/{{id}}"):
            return [{"id": one} for one in (self.doomed if ending else self.clips)]
        if "/segments/" in template:
            return []
        if "/sessions/{id}" in template:
            return [{"id": one} for one in (self.sessions[:1] if ending else self.sessions)]
        if "{sessionId}" in template:
            return [{"sessionId": one} for one in self.sessions[:1]]
        if "{roomName}" in template:
            return [{"roomName": f"room-{user}-{self.round}"} for user in PEOPLE]
        if "/users/{id}" in template:
            return [{"id": one} for one in (["leaver"] if ending else people)]
        if "{userId}" in template:
            both = [{"id": "red", "userId": user} for user in [*people, "leaver"]]
            return [{**one, "role": "streamer"} if "{role}" in template else one for one in both]
        if "/community/{id}" in template:
            role = {"role": "streamer"} if "{role}" in template else {}
            return [{"id": one, **role} for one in ["red", "blue"]]
        if "/maintenance/{job}" in template:
            jobs = ask(f"{self.api}/admin/maintenance", token=self.mint("root", "--admin"))[1]
            names = re.findall(r'"(?:name|job)": "([^"]+)"', json.dumps(jobs))
            return [{"job": one} for one in names]
        return []


def run(stage, kind, token, examples, seed):
    given = stage.given
    feed, counts, report = (f"{given.work}/{kind}-{name}.json" for name in ["feed", "counts", "report"])
    with open(feed, "w", encoding="utf-8") as file:
        json.dump(stage.feed(), file)
    command = [f"{given.tools}/st", "run", f"{given.base}/openapi.json", "--url", given.base, "-c", CHECKS]
    command += ["--phases", "examples,coverage,fuzzing", "-n", str(examples), "--seed", str(seed)]
    command += ["--continue-on-failure", "--request-timeout", "60", "--suppress-health-check", "all"]
    command += ["--report", "json", "--report-json-path", report, "--warnings", "off"]
    if token is not None:
        command += ["-H", f"Authorization: Bearer {token}"]
    hooks = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hooks.py")
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": hooks, "FUZZ_FEED": os.path.abspath(feed)}
    environment |= {"FUZZ_COUNTS": os.path.abspath(counts), "FUZZ_SEED": str(seed), "PYTHONUNBUFFERED": "1"}
    text = f"{given.work}/{kind}.txt"
    began = time.monotonic()
    with open(text, "w", encoding="utf-8") as out:
        # in the run's own directory: it leaves files where it runs
        done = subprocess.run(command, cwd=given.work, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
    took = time.monotonic() - began
    try:
        counted = json.load(open(counts, encoding="utf-8"))
        reported = json.load(open(report, encoding="utf-8"))
    except OSError:
        print(open(text, encoding="utf-8").read()[-4000:])
        raise SystemExit(f"{kind}: schemathesis did not run") from None
    cases = reported["test_cases"]
    found = cases["unique_failures"] + cases["errored"]
    if done.returncode and not found:
        found = 1
    requests = sum(counted["statuses"].values())
    print(f"{kind}: {requests} requests in {took:.0f} s, {found} findings", flush=True)
    if found:
        shown = open(text, encoding="utf-8").read()
        at = shown.find("= FAILURES =")
        print(shown[max(at - 80, 0):][:6000], flush=True)
    return {"kind": kind, "requests": requests, "statuses": counted["statuses"], "findings": found, "operations": counted["operations"]}


def table(results):
    rows = [["token", "requests", "findings", "statuses"]]
    for one in results:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(one["statuses"].items()))
        rows.append([one["kind"], str(one["requests"]), str(one["findings"]), statuses])
    whole = sum(one["requests"] for one in results)
    rows.append(["together", str(whole), str(sum(one["findings"] for one in results)), ""])
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    return "\n".join("  ".join([*(cell.ljust(widths[at]) for at, cell in enumerate(row[:3])), row[3]]) for row in rows)


def main():
    given = arguments()
    stage = Stage(given)
    hook = {"urls": [f"{given.base}{ROOT}/webhooks/livekit"]}
    stage.expect(ask(given.simulator + "/sim/webhooks", "PUT", hook), 200)
    secret = os.environ["JWT_SECRET"]
    now = int(time.time())

    def root():
        return stage.mint("root", "--admin", "--community", "red:admin")

    # made when they are used: whoever was removed meanwhile has lost what older ones say
    tokens = {
        "member": lambda: stage.mint("member", "--community", "red:member"),
        "moderator": lambda: stage.mint("moderator", "--community", "red:moderator"),
        "owner-of-clips": lambda: stage.mint(PEOPLE[0], "--community", "red:moderator"),
        "instance-admin": root,
        "none": lambda: None,
        "expired": lambda: signed_again(root(), secret, iat=now - 90_000, nbf=now - 90_000, exp=now - 3_600),
        "garbage": lambda: "not-a-token.at-all.",
        "of-another-secret": lambda: signed_again(root(), secret + "-not"),
    }
    results = []
    for at, (kind, token) in enumerate(tokens.items()):
        if given.only and kind != given.only:
            continue
        stage.make()
        # fewer for those whose every answer ought to be 401
        examples = max(given.examples // 3, 10) if kind in REFUSED else given.examples
        results.append(run(stage, kind, token(), examples, given.seed + at))
    print()
    print(table(results))
    for one in results:
        if one["kind"] in REFUSED:
            let_in = [name for name, statuses in one["operations"].items() if any(s.startswith("2") for s in statuses)]
            print(f"answered with 2xx, token {one['kind']}: {', '.join(sorted(let_in)) or 'nothing'}")
    with open(f"{given.work}/operations.txt", "w", encoding="utf-8") as file:
        for one in results:
            for name, statuses in sorted(one["operations"].items()):
                file.write(f"{one['kind']}\t{name}\t{json.dumps(statuses)}\n")
    return 1 if any(one["findings"] for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
