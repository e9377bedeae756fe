// What the system grants this process, and what it says when that is used up.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

// Raises the soft limit of open files and sockets as far as the hard one allows, and returns it. A
// process-wide setting: for main() and for tests.
std::uint64_t raise_descriptor_limit();

// What errno means, with the limit to raise where one is the cause:
// "Too many open files (the limit is 1024: raise it with ulimit -n)". Any thread.
std::string error_text(int error);

}  // namespace switchyard
