#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/random.h"
#include "base/sha256.h"
#include "base/system_limits.h"
#include "model/image_file.h"
#include "model/image_format.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporary = ".tmp.";
constexpr std::size_t kRandomDigits = 16;
constexpr std::size_t kBuffer = 1u << 20;

// NAME.tmp.0123456789abcdef
bool is_temporary_name(std::string_view name) {
  if (name.size() <= kTemporary.size() + kRandomDigits) return false;
  const std::string_view digits = name.substr(name.size() - kRandomDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos &&
         name.substr(0, name.size() - kRandomDigits).ends_with(kTemporary);
}

// Nothing but an image that somebody began to write.
bool is_unfinished_image(int file) {
  char magic[8];
  const ssize_t count = pread(file, magic, sizeof(magic), 0);
  if (count == 0) return true;
  const std::string_view text(magic, count < 0 ? 0 : static_cast<std::size_t>(count));
  return text == kUnfinishedImageMagic || text == kImageMagic;
}

// Removes temporary files whose writer is gone: a writer holds its file's lock as long as it lives. Names are
// random, so that one which is seen here is never used again.
void remove_stale(const fs::path& directory) {
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    if (!is_temporary_name(entry->path().filename().string())) continue;
    const int file = open(entry->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0) continue;
    if (flock(file, LOCK_EX | LOCK_NB) == 0 && is_unfinished_image(file)) unlink(entry->path().c_str());
    close(file);
  }
}

class FileWriter final : public ImageWriter {
 public:
  FileWriter(int file, fs::path temporary, fs::path target, ImageDescription description)
      : file_(file),
        temporary_(std::move(temporary)),
        target_(std::move(target)),
        description_(std::move(description)) {
    buffer_.reserve(kBuffer);
  }

  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  ~FileWriter() override {
    if (!finished_) unlink(temporary_.c_str());
    close(file_);
  }

  Status begin(ImageEntry entry) override {
    if (auto status = usable(); !status) return status;
    if (entry.name.empty() || !names_.insert(entry.name).second) {
      return fail(ErrorCode::invalid, "image entry '{}' needs a name of its own", entry.name);
    }
    if (auto status = pad(); !status) return status;
    entry.offset = data_bytes_;
    entry.bytes = 0;
    entries_.push_back(std::move(entry));
    return {};
  }

  Status append(std::span<const std::byte> bytes) override {
    if (auto status = usable(); !status) return status;
    if (entries_.empty()) return fail(ErrorCode::invalid, "bytes for an image come before its first entry");
    entries_.back().bytes += bytes.size();
    return write_data(bytes);
  }

  Status finish() override {
    if (auto status = usable(); !status) return status;
    if (auto status = pad(); !status) return status;
    if (auto status = flush(); !status) return status;
    const std::vector<std::byte> index = serialize_image_index(description_, entries_);
    ImageHeader header{.data_bytes = data_bytes_, .index_bytes = index.size(), .data_hash = hash_.finish()};
    Sha256 index_hash;
    index_hash.update(index);
    header.index_hash = index_hash.finish();
    failed_ = true;  // nothing may follow, whatever happens here
    if (auto status = write_at(index, kImageAlignment + data_bytes_); !status) return status;
    if (auto status = write_at(serialize_image_header(header), 0); !status) return status;
    if (fsync(file_) != 0) return io_error("sync");
    if (rename(temporary_.c_str(), target_.c_str()) != 0) return io_error("rename");
    finished_ = true;
    sync_directory();
    return {};
  }

  std::uint64_t size() const override { return kImageAlignment + data_bytes_; }

  Status write_at(std::span<const std::byte> bytes, std::uint64_t offset) {
    while (!bytes.empty()) {
      const ssize_t count = pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        failed_ = true;
        return io_error("write");
      }
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    return {};
  }

 private:
  Status usable() const {
    if (!failed_) return {};
    return fail(ErrorCode::invalid, "the image {} has been finished or has failed before", target_.string());
  }

  tl::unexpected<Error> io_error(std::string_view what) const {
    const int error = errno;
    const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    return fail(ErrorCode::io, "cannot {} the model image {} ({} bytes so far): {}{}", what, target_.string(),
                size(), error_text(error),
                full ? "; make room or put the cache elsewhere (XDG_CACHE_HOME)" : "");
  }

  Status write_data(std::span<const std::byte> bytes) {
    data_bytes_ += bytes.size();
    while (!bytes.empty()) {
      const std::size_t count = std::min(bytes.size(), kBuffer - buffer_.size());
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
      bytes = bytes.subspan(count);
      if (buffer_.size() < kBuffer) continue;
      if (auto status = flush(); !status) return status;
    }
    return {};
  }

  Status flush() {
    hash_.update(buffer_);
    const std::uint64_t written = buffer_.size();
    if (auto status = write_at(buffer_, kImageAlignment + flushed_); !status) return status;
    flushed_ += written;
    buffer_.clear();
    return {};
  }

  Status pad() {
    static constexpr std::array<std::byte, kImageAlignment> kZeros{};
    const std::uint64_t over = data_bytes_ % kImageAlignment;
    return over == 0 ? Status() : write_data(std::span(kZeros).first(kImageAlignment - over));
  }

  // Makes the new name last through a power failure; where that is not possible the image is only made again.
  void sync_directory() const {
    const fs::path parent = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
    const int directory = open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return;
    fsync(directory);
    close(directory);
  }

  int file_;
  fs::path temporary_;
  fs::path target_;
  ImageDescription description_;
  std::vector<ImageEntry> entries_;
  std::set<std::string> names_;
  std::vector<std::byte> buffer_;
  std::uint64_t data_bytes_ = 0;
  std::uint64_t flushed_ = 0;
  Sha256 hash_;
  bool failed_ = false;
  bool finished_ = false;
};

}  // namespace

Result<std::unique_ptr<ImageWriter>> ImageWriter::create(const fs::path& target,
                                                         ImageDescription description) {
  const fs::path directory = target.has_parent_path() ? target.parent_path() : fs::path(".");
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return fail(ErrorCode::io, "cannot make the folder {}: {}", directory.string(), error.message());
  remove_stale(directory);
  constexpr int kAttempts = 16;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const fs::path temporary = fmt::format("{}{}{:016x}", target.string(), kTemporary, random_word());
    const int file = open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0) {
      if (errno == EEXIST) continue;
      return fail(ErrorCode::io, "cannot write {}: {}", temporary.string(), error_text(errno));
    }
    // Another writer may take the new file for a forgotten one until it is locked; then it is removed, and
    // this one starts again.
    struct stat status {};
    if (flock(file, LOCK_EX | LOCK_NB) != 0 || fstat(file, &status) != 0 || status.st_nlink == 0) {
      close(file);
      unlink(temporary.c_str());
      continue;
    }
    auto writer = std::make_unique<FileWriter>(file, temporary, target, std::move(description));
    if (auto marked = writer->write_at(std::as_bytes(std::span(kUnfinishedImageMagic)), 0); !marked) {
      return pass(marked.error());
    }
    return writer;
  }
  return fail(ErrorCode::io, "cannot make a locked file beside {}; does its file system have locks?",
              target.string());
}

Status ImageWriter::add(ImageEntry entry, std::span<const std::byte> bytes) {
  if (auto status = begin(std::move(entry)); !status) return status;
  return append(bytes);
}

}  // namespace switchyard::model
