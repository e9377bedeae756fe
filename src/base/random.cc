#include "base/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <random>

namespace switchyard {

Status fill_random(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = getrandom(bytes.data(), bytes.size(), 0);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    } else if (errno != EINTR) {
      return fail(ErrorCode::io, "the kernel gives no random numbers: getrandom: {}", strerror(errno));
    }
  }
  return {};
}

std::uint64_t random_word() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

}  // namespace switchyard
