#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/random.h"
#include "base/system_limits.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kStep = 64 << 10;

// Errors with errno.
Result<std::string> read_all(int file, const fs::path& path, std::uint64_t most) {
  struct stat status {};
  if (::fstat(file, &status) != 0)
    return fail(ErrorCode::io, "cannot read {}: {}", path.string(), error_text(errno));
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::invalid, "{} is not a regular file", path.string());
  std::string text;
  while (true) {
    const std::size_t had = text.size();
    text.resize(had + kStep);
    ssize_t got = 0;
    do {
      got = ::read(file, text.data() + had, kStep);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return fail(ErrorCode::io, "cannot read {}: {}", path.string(), error_text(errno));
    text.resize(had + static_cast<std::size_t>(got));
    if (text.size() > most)
      return fail(ErrorCode::out_of_range, "{} is larger than {} bytes, the most that is read", path.string(),
                  most);
    if (got == 0) return text;
  }
}

}  // namespace

Result<std::string> read_file(const fs::path& path, std::uint64_t most) {
  // A pipe that nobody writes to would hold up a blocking open.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    const bool denied = errno == EACCES || errno == EPERM;
    const bool absent = errno == ENOENT || errno == ENOTDIR;
    return fail(denied   ? ErrorCode::denied
                : absent ? ErrorCode::not_found
                         : ErrorCode::io,
                "cannot open {}: {}", path.string(), error_text(errno));
  }
  auto text = read_all(file, path, most);
  ::close(file);
  return text;
}

Status replace_file(const fs::path& path, std::string_view bytes) {
  std::error_code error;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  const fs::path temporary = temporary_beside(path);
  std::ofstream file(temporary, std::ios::binary);
  file << bytes;
  file.close();
  if (!file) {
    const std::string why = error_text(errno);
    fs::remove(temporary, error);
    return fail(ErrorCode::io, "cannot write {}: {}", path.string(), why);
  }
  fs::rename(temporary, path, error);
  if (!error) return {};
  const std::string why = error.message();
  fs::remove(temporary, error);
  return fail(ErrorCode::io, "cannot replace {}: {}", path.string(), why);
}

fs::path temporary_beside(const fs::path& path) {
  return fmt::format("{}.{:016x}", path.string(), random_word());
}

}  // namespace switchyard
