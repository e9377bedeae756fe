// Bytes that nobody guesses: ids, keys, nonces. From the kernel; any thread; about a microsecond.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "switchyard/result.h"

namespace switchyard {

// Errors: io (a sandbox that forbids the call).
Status fill_random(std::span<std::byte> bytes);

// The same for names and seeds. Throws std::exception where there is no randomness at all.
std::uint64_t random_word();

}  // namespace switchyard
