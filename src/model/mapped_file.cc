#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/system_limits.h"

namespace switchyard::model {
namespace {

ErrorCode code_of(int error) {
  if (error == ENOENT || error == ENOTDIR) return ErrorCode::not_found;
  if (error == EACCES || error == EPERM) return ErrorCode::denied;
  return ErrorCode::io;
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return fail(code_of(errno), "cannot open {}: {}", path.string(), error_text(errno));
  struct stat status {};
  MappedFile mapped;
  if (fstat(file, &status) != 0) {
    const int error = errno;
    ::close(file);
    return fail(ErrorCode::io, "cannot read the size of {}: {}", path.string(), error_text(error));
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(file);
    return fail(ErrorCode::invalid, "{} is not a regular file", path.string());
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  if (address == MAP_FAILED) {
    const int error = errno;
    ::close(file);
    return fail(ErrorCode::io, "cannot map the {} bytes of {}: {}", size, path.string(), error_text(error));
  }
  mapped.descriptor_ = file;
  if (size != 0) mapped.bytes_ = {static_cast<const std::byte*>(address), size};
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status MappedFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
    return fail(ErrorCode::out_of_range, "{} bytes at {} are outside of a file of {}", out.size(), offset,
                bytes_.size());
  }
  for (std::size_t done = 0; done < out.size();) {
    const ssize_t count =
        pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(ErrorCode::io, "cannot read at {}: {}", offset + done, error_text(errno));
    if (count == 0) {
      return fail(ErrorCode::corrupt, "the file ends at {}; it had {} bytes when it was opened",
                  offset + done, bytes_.size());
    }
    done += static_cast<std::size_t>(count);
  }
  // Only advice: pages that somebody maps stay.
  posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(out.size()), POSIX_FADV_DONTNEED);
  return {};
}

}  // namespace switchyard::model
