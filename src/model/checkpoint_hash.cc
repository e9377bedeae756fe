#include "model/checkpoint_hash.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "base/files.h"
#include "base/paths.h"
#include "base/sha256.h"
#include "base/system_limits.h"
#include "model/checkpoint.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

// A file that was changed so shortly ago may change again within its time stamp's grain: it is not
// remembered.
constexpr std::int64_t kSettledNanos = 2'000'000'000;

struct FileIdentity {
  std::string path;
  std::uint64_t size = 0;
  std::int64_t modified_nanos = 0;
  std::uint64_t inode = 0;
  std::uint64_t device = 0;

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

Result<FileIdentity> identify(const fs::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    const ErrorCode code = errno == ENOENT || errno == ENOTDIR ? ErrorCode::not_found : ErrorCode::io;
    return fail(code, "cannot read {}: {}", path.string(), error_text(errno));
  }
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::invalid, "{} is not a regular file", path.string());
  std::error_code error;
  const fs::path canonical = fs::canonical(path, error);
  return FileIdentity{
      .path = (error ? path : canonical).string(),
      .size = static_cast<std::uint64_t>(status.st_size),
      .modified_nanos = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec,
      .inode = status.st_ino,
      .device = status.st_dev};
}

std::string hash_text(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text)));
  return to_hex(hash.finish());
}

// One small file for each path: identity and hash, and a hash of both against torn writes.
std::vector<std::byte> serialize(const FileIdentity& identity, const Sha256Digest& digest) {
  ByteWriter writer;
  writer.write_string("switchyard hash 1");
  writer.write_string(identity.path);
  writer.write(identity.size);
  writer.write(identity.modified_nanos);
  writer.write(identity.inode);
  writer.write(identity.device);
  writer.write(digest);
  Sha256 check;
  check.update(writer.bytes());
  writer.write(check.finish());
  return writer.take();
}

fs::path cache_file(const fs::path& cache, const FileIdentity& identity) {
  return cache / hash_text(identity.path);
}

std::optional<Sha256Digest> remembered(const fs::path& cache, const FileIdentity& identity) {
  // As long as what would be written now, and equal to it but for the hash, which its own hash vouches for.
  std::vector<std::byte> expected = serialize(identity, {});
  const auto bytes = read_file(cache_file(cache, identity), expected.size());
  if (!bytes || bytes->size() != expected.size()) return std::nullopt;
  Sha256Digest digest;
  std::memcpy(digest.data(), bytes->data() + expected.size() - 2 * digest.size(), digest.size());
  expected = serialize(identity, digest);
  if (std::memcmp(expected.data(), bytes->data(), expected.size()) != 0) return std::nullopt;
  return digest;
}

void remember(const fs::path& cache, const FileIdentity& identity, const Sha256Digest& digest) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto now_nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  if (now_nanos - identity.modified_nanos < kSettledNanos) return;
  const std::vector<std::byte> bytes = serialize(identity, digest);
  // It is read again next time where this fails.
  static_cast<void>(
      replace_file(cache_file(cache, identity), {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
}

}  // namespace

HashOptions HashOptions::with_default_cache() {
  return {.cache = cache_directory() / "hashes", .progress = {}};
}

Result<std::string> hash_files(std::span<const fs::path> files, const HashOptions& options) {
  std::uint64_t total = 0;
  std::uint64_t done = 0;
  std::vector<FileIdentity> identities;
  std::vector<std::optional<Sha256Digest>> digests;
  for (const fs::path& path : files) {
    auto identity = identify(path);
    if (!identity) return pass(identity.error());
    digests.push_back(options.cache.empty() ? std::nullopt : remembered(options.cache, *identity));
    if (!digests.back()) total += identity->size;
    identities.push_back(std::move(*identity));
  }
  ByteWriter all;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!digests[i]) {
      const auto progress = [&](std::uint64_t in_file, std::uint64_t) {
        if (options.progress) options.progress(done + in_file, total);
      };
      const auto digest = sha256_file(files[i], progress);
      if (!digest) return pass(digest.error());
      done += identities[i].size;
      digests[i] = *digest;
      // Not if it changed while it was read.
      const auto after = identify(files[i]);
      if (after && *after == identities[i] && !options.cache.empty())
        remember(options.cache, identities[i], *digest);
    }
    all.write_string(files[i].filename().string());
    all.write(identities[i].size);
    all.write(*digests[i]);
  }
  Sha256 hash;
  hash.update(all.bytes());
  return to_hex(hash.finish());
}

Result<std::string> hash_checkpoint(const fs::path& path, const HashOptions& options) {
  const auto files = checkpoint_files(path);
  if (!files) return pass(files.error());
  return hash_files(*files, options);
}

}  // namespace switchyard::model
