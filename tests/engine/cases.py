"""What people type, as one session in order: each line is run with the real client against labkit's engine and against Docker's.

``=``: the same exit status and the same words on both streams, once ids, times, sizes and names that a daemon makes up are masked.
``~``: the same exit status and the same number of lines; the words differ by nature (versions, reasons, what ``ps`` says).
``?``: the same exit status.
"""

from __future__ import annotations

import re

__all__ = ["CASES", "masked"]

_LINES = r"""
? docker version
? docker info
= docker ps
= docker ps -a
= docker images
= docker images -a busybox
= docker create --name c0 busybox true
= docker start c0
= docker start -a c0
= docker run --name r1 busybox echo hi
= docker run --rm busybox sh -c "echo out; echo err >&2; exit 3"
= docker run -d --name c1 busybox sleep 1000
= docker ps -aq --filter name=c1 --filter status=running
= docker ps -as --format '{{.Names}} {{.Status}}'
= (echo a; sleep .3; echo b) | docker run --rm -i busybox cat
= head -c 300000 /dev/zero | docker run --rm -i busybox wc -c
= mkdir -p vol; docker run --rm -e A=1 -v $PWD/vol:/v:ro -v namedvol:/n -p 8088:80 -p 127.0.0.1::81/udp --name f1 --memory 64m --cpus 0.5 busybox sh -c 'echo $A; touch /v/x 2>/dev/null; echo $?; touch /n/y; ls /n'
= docker network create trnet0; docker run --rm --network trnet0 --network-alias al --ip 172.18.0.77 busybox true; echo $?; docker network inspect trnet0 -f '{{.Name}}'; docker network rm trnet0
~ docker run --rm 127.0.0.1:1/nosuchimage:1 true
~ docker run --rm busybox /nope
~ docker run --rm busybox nope
~ docker run --rm busybox /etc
~ docker run --rm busybox /etc/passwd
= docker run --name c1 busybox true
= docker run -d --name sp busybox sh -c "trap 'exit 7' INT; while :; do sleep .1; done"; sleep 1; docker kill -s INT sp; docker wait sp; docker rm sp
= docker exec c1 echo hi
= docker exec -d c1 sleep 1
= echo foo | docker exec -i c1 cat
= docker exec -e A=1 -u 1000 -w /tmp c1 sh -c 'echo $A; id -u; pwd; exit 4'
= docker exec c1 /nope
= docker exec c1 nope
= docker exec c0 true
= docker exec nosuch true
= docker attach --no-stdin nosuch
= docker logs r1
= docker run -d --name lg busybox sh -c "for i in 1 2 3; do echo \$i; sleep .2; done" >/dev/null; docker logs -f --tail 2 lg; docker logs -t lg; docker logs --tail 1 --since 1 lg
= docker logs nosuch
? docker inspect c1
= docker inspect -f '{{.State.Status}} {{.Config.Hostname}} {{.HostConfig.NetworkMode}} {{.Path}} {{.Args}} {{.Name}} {{.RestartCount}} {{.Config.Env}}' c1
= docker inspect -f '{{.Os}} {{.RepoTags}} {{.Architecture}}' busybox
= docker inspect nosuch
? docker container inspect -s c1
= docker top c1
= docker top c1 -o pid,cmd
= docker stats --no-stream --format '{{.Name}} {{.PIDs}}' c1
= docker exec c1 touch /newfile; docker exec c1 rm /bin/uniq; docker exec c1 sh -c 'echo x >> /etc/group'; docker diff c1 | sort
= echo hello > cpme; docker cp ./cpme c1:/tmp/; docker exec c1 cat /tmp/cpme
= rm -f out; docker cp c1:/etc/passwd ./out; cat out
= docker cp c1:/etc/passwd - | tar t
= docker cp c1:/nope ./out
? docker cp ./cpme c1:/nodir/
= docker cp ./cpme c0:/tmp/x; docker cp c0:/tmp/x - | tar xO
= docker port c1
= docker rename c0 c0b; docker ps -a --filter name=c0b --format '{{.Names}}'
= docker pause c1; docker ps --filter name=c1 --format '{{.Status}}'; docker exec c1 true; docker unpause c1
= docker update --memory 100m --memory-swap 200m c1; docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}' c1
= docker commit -m msg -a me -c 'CMD ["ls"]' c1 cimg:1
= docker tag cimg:1 127.0.0.1:5000/cimg:1; docker images --format '{{.Repository}}:{{.Tag}}' | sort
= docker history cimg:1 --format '{{.CreatedBy}} {{.Comment}}'
= docker rmi 127.0.0.1:5000/cimg:1
? docker rmi cimg:1
= docker rmi busybox:latest
= docker rmi nosuch:1
= docker save -o ./s.tar busybox:latest; tar tf s.tar | grep -c manifest.json
= docker load -i ./s.tar
= docker export c1 -o ./e.tar; tar tf e.tar | grep -c bin/busybox
= docker import -c "CMD sh" -m hi ./e.tar imp:1; docker run --rm imp:1 ls /newfile
= cat e.tar | docker import - imp:2
? mkdir -p ctx; printf 'FROM busybox\nARG X=0\nENV Y=$X\nCOPY f /f\nRUN echo $X > /x && cat /f\nCMD ["cat","/x"]\n' > ctx/Dockerfile; echo ff > ctx/f; docker build -t bimg:1 --build-arg X=1 --label a=b ctx
= docker run --rm bimg:1
= docker build -q -t bimg:1 ctx
? printf 'FROM busybox\nRUN echo hi\n' | docker build -t bimg:2 -
? printf 'FROM busybox AS a\nRUN echo st\nFROM a\nRUN echo b\n' > ctx/D2; docker build --no-cache --target a -f ctx/D2 ctx
? printf 'FROM busybox\nRUN exit 5\n' | docker build -
? printf 'FROM busybox\nNOSUCH x\n' | docker build -
= docker image ls -f dangling=true --format x | sort -u
? docker image prune -f
= docker network ls
= docker network create --subnet 172.30.0.0/24 tn
= docker network create tn
= docker network connect --alias web tn c1
= docker network inspect tn -f '{{.Name}} {{.Driver}} {{len .Containers}} {{.Internal}}'
= docker run --rm --network tn --ip 172.30.0.77 busybox sh -c 'ip -4 addr show eth0 | grep inet; ping -c1 -W2 web | grep -o "[0-9]* packets received"; nslookup web 2>&1 | grep -c 172.30'
= docker network rm tn
= docker network disconnect tn c1
= docker network rm tn
= docker network rm tn
= docker network create tp; docker network prune -f
= docker volume ls --format '{{.Name}}'
= docker volume create --label a=b tv
= docker volume create | wc -c
= docker volume inspect tv -f '{{.Name}} {{.Driver}} {{.Labels}} {{.Scope}}'
= docker volume rm tv
= docker volume rm tv
? docker volume prune -f
? docker events --since 5s --until 0s
~ docker system df
? docker system df -v
= docker run -d --name w1 busybox sh -c "sleep .5; exit 9" >/dev/null; docker wait w1
= docker wait nosuch
= docker stop -t 1 c1; docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' c1
= docker stop c1
= docker restart -t 0 c1
= docker kill -s KILL c1
= docker kill c1
= docker rm c1
= docker run -d --name rr busybox sleep 100 >/dev/null; docker rm rr
= docker rm -fv rr
= docker rm nosuch
? docker container prune -f
= docker system prune -f | tail -1
? docker rmi -f imp:1 imp:2 bimg:1 bimg:2
= docker builder prune -f
= docker run --rm --cap-drop ALL --cap-add CHOWN busybox grep CapEff /proc/self/status
= docker run --rm --read-only busybox sh -c 'touch /x 2>/dev/null; touch /dev/shm/x; echo $?'
= docker run --rm --hostname foo --add-host a:1.2.3.4 busybox sh -c 'hostname; grep 1.2.3.4 /etc/hosts'
= docker run --rm --dns 9.9.9.9 --dns-search ex.org busybox cat /etc/resolv.conf
= docker run --rm -w /a/b --entrypoint pwd busybox
= docker run --rm --memory 20m busybox sh -c 'x=$(head -c 100000000 /dev/zero | tr "\0" a); echo $?'
= docker run --rm --nosuchflag busybox true
= docker run --rm --memory 1m busybox true
= docker run --rm --cap-add NOPE busybox true 2>/dev/null
= docker run --rm -v relative:/x:bad busybox true
= docker run --rm -v /:/ busybox true
= docker run -d --rm -p 127.0.0.1::80 --name pp busybox sleep 20 >/dev/null; docker port pp | sed 's/:[0-9]*$/:P/'; docker rm -f pp
= docker run --restart on-failure:1 -d --name rs busybox false >/dev/null; until docker inspect -f '{{.State.Status}}' rs | grep -q exited; do sleep .2; done; docker inspect -f '{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}' rs; docker rm rs
= docker run --rm busybox env | grep -v HOSTNAME | sort
= docker run --rm --init busybox ps -o comm
= docker plugin ls
? docker search foo
"""

CASES = [(line[0], line[2:]) for line in _LINES.strip().splitlines()]

_MASKS = (
    (r"\b[0-9a-f]{64}\b", "<id>"),
    (r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b", "<short id>"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z| \+0000 UTC)?", "<time>"),
    (r"\b\d+(\.\d+)?\s?([kMG]i?B|B)\b", "<size>"),
    (r"\b[a-z]+_[a-z]+\d*\b(?=\s*$)", "<name>"),
    (r"(Less than a second|About an? \w+|\d+ (seconds?|minutes?))( ago)?", "<while>"),
    (r"^root\s+\d+\s+\d+\s+\d+\s+\d\d:\d\d\s+\?\s+[\d:]+", "<ps>"),
    (r"^\s*\d+\s+(?=sleep)", "<pid> "),
    (r"[ \t]+", " "),
)


def masked(text: str) -> str:
    """Return ``text`` without what a daemon makes up."""
    for pattern, word in _MASKS:
        text = re.sub(pattern, word, text, flags=re.M)
    return text.strip()
