// The docstrings of Engine and Counter.
#pragma once

namespace switchyard::python::docs {

inline constexpr const char* kCounter =
    R"(Counts transfers of peers that named it and have arrived in full. Freed with its last handle (an
Expectation is one too).)";

inline constexpr const char* kExpect =
    R"(Returns an Operation that ends when `transfers` transfers in all have arrived since the counter was
made, those before this call included; all their bytes are visible then.

timeout: seconds, after which it ends with TimedOut. One expectation at a time (Invalid); afterwards the next
may be armed, with a larger total.)";

inline constexpr const char* kCounterWait =
    R"(In asyncio: `await counter.wait(n)` is `await counter.expect(n)`, and withdraws the expectation when the
task is cancelled. Elsewhere: counter.expect(n).wait().)";

inline constexpr const char* kRegister =
    R"(Registers the memory of an object for reading by this engine and writing by peers; returns its Region.

The object has the buffer protocol (NumPy array, bytearray, mmap, memoryview) or DLPack (`__dlpack__`, in host
memory), is writable and contiguous; it stays alive with the region. Costs system calls: do it at start, not
per request. Raises Denied (read-only), Invalid (gaps, empty, neither protocol), Unsupported (memory of a
device), Exhausted.)";

inline constexpr const char* kRegisterDmabuf =
    R"(Registers memory of a device that was exported as a DMA-BUF.

address: of the first byte, as the device's runtime gives it. dmabuf: its file descriptor, borrowed for the
call; offset: where in it the memory begins, in bytes. owner: kept alive with the region. Raises also
Unsupported (a rail that cannot reach it).)";

inline constexpr const char* kWrite =
    R"(Writes one run of bytes of a region of this engine into a region of a peer.

source: Region. peer: PeerAddress. target: RegionKey. Offsets and nbytes are bytes; nbytes defaults to the
rest of the source. counter: CounterId of the peer, counted once when all bytes have landed. timeout: seconds
until it ends with TimedOut. priority: LATENCY overtakes BULK wherever they queue in this engine.

Ends when the bytes are visible at the peer. The source must not change until then. Raises, without having
sent anything: Invalid, OutOfRange, Denied (a key or address of an engine that is gone), Exhausted (wait for
transfers to end), PeerLost, Unsupported.)";

inline constexpr const char* kWritePages =
    R"(Writes pages: page i is read at source_offset + source_pages[i] * source_stride and lands at
target_offset + target_pages[i] * target_stride, all as one transfer.

The lists are arrays of whole numbers (buffer protocol or DLPack; uint32 is copied in one go) or sequences of
ints, of equal length; pages of the target may not repeat. Strides default to page_bytes. The rest is as with
write().)";

inline constexpr const char* kScatter =
    R"(Writes one slice of a region to each member of a group, as one transfer.

nbytes, source_offsets, target_offsets: an array or a sequence of ints, one for each member, or one int for
all. counters: a sequence of CounterId or None, one for each member. A slice without bytes and counter is left
out. Ends when all slices have ended, with the first error if there was one. The rest is as with write().)";

inline constexpr const char* kSignal =
    R"(Adds one to a counter of a peer, without bytes: for barriers, and to say that something is done.)";

inline constexpr const char* kSend =
    R"(Sends a small message (anything with the buffer protocol; copied) to the handler of on_message() there.

Ends when the peer's engine has it. Messages are not ordered. Raises as write() does; OutOfRange when it is
longer than message_bytes.)";

inline constexpr const char* kConnect =
    R"(Starts a connection, and watches the peer's life from now on. Ends when it stands. Submitting anything
connects as well. The way to a peer that was lost and lives all the same (its host stood still).)";

inline constexpr const char* kMetrics =
    R"(What the engine has done and has under way, as a dict of numbers; `rails`, `peers` (with their paths) and
`operations` are lists of dicts. Bytes, seconds; log2_nanoseconds[i] counts operations of 2**(i-1) to 2**i ns.)";

}  // namespace switchyard::python::docs
