"""Where a path leads: the file that is written for it, and opening files without following planted links."""

import errno
import os
import stat

# As in the kernel, more links than that count as a circle.
_MOST_LINKS = 40
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}


def written_place(path: str, follow_links: bool = True) -> str:
    """The file that is replaced when ``path`` is written; it may not be there yet.

    Args:
        path: the file as a user names it.
        follow_links: a symbolic link stays, and the file that it names is written; otherwise the link itself
            is replaced, for names that a user does not choose.

    Raises:
        ValueError: if something that is no regular file is there; it names ``path``.
    """
    place = os.fspath(path)
    if os.path.basename(place) in ("", ".", ".."):
        raise ValueError(f"{path}: cannot be written there, it names a folder: add the name of a file")
    links = 0
    while follow_links and os.path.islink(place):
        folder = os.path.realpath(os.path.dirname(place))
        links += 1
        if links > _MOST_LINKS:
            raise ValueError(f"{path} is a symbolic link that leads in a circle: remove it")
        if f"{folder}/".startswith("/proc/"):
            # Such as /dev/stdout: a file that replaces an open one is lost.
            raise ValueError(f"{path} is an open file of a process, no name of a file: choose another name")
        place = os.path.join(folder, os.readlink(place))
    try:
        mode = os.lstat(place).st_mode
    except FileNotFoundError:
        return place
    if not stat.S_ISREG(mode) and (follow_links or not stat.S_ISLNK(mode)):
        raise ValueError(f"{path} is {kind_of(mode)}, no regular file: choose another name")
    return place


def kind_of(mode: int) -> str:
    """What a file of this mode is, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def open_regular(path: str, flags: int, mode: int = 0o666, *, follow_links: bool = False) -> int:
    """``os.open`` of a regular file; never waits for the other end of a pipe.

    Args:
        follow_links: False for files under fixed names, which are this package's own: somebody else may have
            planted a link to another file there. A file that has a second name is refused, then, too.

    Raises:
        ValueError: naming the file, if something else is there.
    """
    # Where links are followed, a user has named the file: it may be a folder full of work.
    way_out = "name a file" if follow_links else "remove it"
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        file = os.open(path, flags, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{path} is a symbolic link, which is not followed: remove it") from error
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise ValueError(f"{path} is no regular file: {way_out}") from error
        raise
    status = os.fstat(file)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = f"{path} is {kind_of(status.st_mode)}, no regular file: {way_out}"
    elif not follow_links and status.st_nlink > 1 and flags & (os.O_WRONLY | os.O_RDWR):
        problem = f"{path} has a second name (a hard link), under which it would change, too: remove it"
    if problem:
        os.close(file)
        raise ValueError(problem)
    return file
