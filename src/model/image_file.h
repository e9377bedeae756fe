// The file that holds a model image: a header page, one page-aligned run of data, and an index behind it.
//
//   0        header: magic, version, where data and index are, their SHA-256, its own SHA-256
//   4096     data: the entries' bytes, each at a multiple of kImageAlignment, zeros between
//   ...      index: layout version, hash of the source, configuration, tokenizer, entries
//
// The container knows nothing of how a tensor is packed: an entry has a format number and parameters that are
// its user's. Formats and parameters are the business of the layout version, which the container only
// carries.
//
// ImageWriter: one thread. ImageFile: immutable, any thread; costs one mapping and the reading of the index.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.h"
#include "model/config.h"
#include "switchyard/result.h"

namespace switchyard::model {

inline constexpr std::uint64_t kImageAlignment = 4096;

struct ImageEntry {
  std::string name;
  std::uint32_t format = 0;
  std::array<std::uint64_t, 2> shape{};  // rows and columns, or a size and 1
  std::array<std::uint32_t, 4> parameters{};
  std::uint64_t offset = 0;  // from the start of the data; a multiple of kImageAlignment. Set by the writer
  std::uint64_t bytes = 0;   // set by the writer

  friend bool operator==(const ImageEntry&, const ImageEntry&) = default;
};

// What an image says of itself, besides its entries.
struct ImageDescription {
  std::uint32_t layout_version = 0;
  std::string source_hash;  // hexadecimal, of the checkpoint
  ModelConfig config;
  std::vector<std::byte> tokenizer;  // TokenizerSpec::serialize()

  friend bool operator==(const ImageDescription&, const ImageDescription&) = default;
};

// Writes to "TARGET.tmp.RANDOM" beside the target, which it holds locked (flock), and renames at the end, so
// that a target is whole or absent, and of two processes that write the same one, the later replaces the
// earlier's equal file. A writer that is destroyed before finish() removes its file; create() removes those
// in the same folder whose writer was killed (their lock is free).
class ImageWriter {
 public:
  // Makes missing folders. Errors: io.
  static Result<std::unique_ptr<ImageWriter>> create(const std::filesystem::path& target,
                                                     ImageDescription description);
  virtual ~ImageWriter() = default;

  // Starts an entry; `offset` and `bytes` are ignored. Errors: invalid (a name twice or empty), io.
  virtual Status begin(ImageEntry entry) = 0;
  // Bytes of the entry begun last, in any number of pieces. Errors: invalid (nothing begun), io (disk full,
  // ...).
  virtual Status append(std::span<const std::byte> bytes) = 0;
  // begin and append in one.
  Status add(ImageEntry entry, std::span<const std::byte> bytes);
  // Writes index and header, syncs, renames. Nothing may follow. Errors: io; the target is untouched then.
  virtual Status finish() = 0;
  // Bytes written so far.
  virtual std::uint64_t size() const = 0;
};

// What an index holds: of any number of copies of the data. Immutable; any thread.
class ImageContents {
 public:
  // Entries as they stand in the index, names once each.
  ImageContents(ImageDescription description, std::vector<ImageEntry> entries);
  ImageContents(const ImageContents&) = delete;
  ImageContents& operator=(const ImageContents&) = delete;

  const ImageDescription& description() const { return description_; }
  const std::vector<ImageEntry>& entries() const { return entries_; }
  const ImageEntry* find(std::string_view name) const;  // nullptr: none

 private:
  const ImageDescription description_;
  const std::vector<ImageEntry> entries_;
  std::map<std::string_view, std::size_t> by_name_;
};

class ImageFile {
 public:
  // Maps the file and checks header, index and every bound; the data is not read. Errors: not_found, corrupt
  // (truncated, changed: make it anew), unsupported (another version of the container), io.
  static Result<std::shared_ptr<const ImageFile>> open(const std::filesystem::path& path);
  // The same of bytes in memory that outlive the result, or that `keep` keeps.
  static Result<std::shared_ptr<const ImageFile>> parse(std::span<const std::byte> bytes,
                                                        std::shared_ptr<const void> keep = {});
  virtual ~ImageFile() = default;

  const std::shared_ptr<const ImageContents>& contents() const { return contents_; }
  const ImageDescription& description() const { return contents_->description(); }
  const std::vector<ImageEntry>& entries() const { return contents_->entries(); }  // as written
  const ImageEntry* find(std::string_view name) const { return contents_->find(name); }
  std::span<const std::byte> data() const { return data_; }  // all entries, at kImageAlignment of the file
  std::span<const std::byte> data(const ImageEntry& entry) const {
    return data_.subspan(entry.offset, entry.bytes);
  }
  std::span<const std::byte> file() const { return file_; }  // header, data and index

  // Copies a part of file(). Of a mapped one without touching the mapping, as MappedFile::read. Errors:
  // out_of_range, corrupt, io.
  virtual Status read(std::uint64_t offset, std::span<std::byte> out) const = 0;

  // Copies the whole file to the begin of `out`, as read() does, and compares the SHA-256 of its data, which
  // is computed beside the reading. `go_on` hears of each piece's bytes; false ends the copying. Header and
  // index of the copy are for parse() to check. Errors: out_of_range (no room), corrupt, io, cancelled.
  Status copy(std::span<std::byte> out, const std::function<bool(std::uint64_t)>& go_on) const;

  // Reads all data and compares its SHA-256. Errors: corrupt.
  Status verify(const std::function<void(std::uint64_t, std::uint64_t)>& progress = {}) const;

 protected:
  ImageFile() = default;
  Status compare(Sha256& hash) const;

  std::shared_ptr<const ImageContents> contents_;
  std::span<const std::byte> data_;
  std::span<const std::byte> file_;
  Sha256Digest data_hash_{};
};

}  // namespace switchyard::model
