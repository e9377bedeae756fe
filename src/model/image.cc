// Finds or makes the image of a checkpoint: cache_directory()/images/HASH.image, HASH being of the
// checkpoint's bytes and the layout's version. An image that is not there, or damaged, is made anew.
#include "model/image.h"

#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/files.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/sha256.h"
#include "model/checkpoint.h"
#include "model/checkpoint_hash.h"
#include "model/image_file.h"
#include "model/image_plan.h"
#include "model/packed_matrix.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

using Progress = std::function<void(std::uint64_t, std::uint64_t)>;

// Formats of entries: vectors of floats, and matrices from this number on.
constexpr std::uint32_t kVectorEntry = 0;
constexpr std::uint32_t kMatrixEntry = 16;

constexpr std::string_view kImageExtension = ".image";
constexpr std::uint64_t kMaxNoteBytes = 64;  // a hash

// What kernels read lies at multiples of this.
constexpr std::size_t kVectorAlignment = 64;

constexpr std::uint32_t kMinimumFlag = 1;
constexpr std::uint32_t kWideFlag = 2;
constexpr std::uint32_t kInterleavedFlag = 4;

ImageEntry to_entry(const std::string& name, const PackedMatrix& matrix) {
  ImageEntry entry;
  entry.name = name;
  entry.format = kMatrixEntry + static_cast<std::uint32_t>(matrix.format);
  entry.shape = {matrix.rows, matrix.columns};
  entry.parameters = {matrix.group, (matrix.minimum ? kMinimumFlag : 0) |
                                        (matrix.wide_scales ? kWideFlag : 0) |
                                        (matrix.interleaved ? kInterleavedFlag : 0)};
  return entry;
}

Result<PackedMatrix> to_matrix(const ImageEntry& entry, std::span<const std::byte> bytes) {
  const std::uint32_t format = entry.format - kMatrixEntry;
  PackedMatrix matrix;
  const bool known = entry.format >= kMatrixEntry && format <= static_cast<std::uint32_t>(WeightFormat::q4);
  const bool quantised = known && format >= static_cast<std::uint32_t>(WeightFormat::q8);
  const std::uint32_t group = entry.parameters[0];
  const bool group_fits = quantised ? (group == 16 || group == 32) && entry.shape[1] % 32 == 0 : group == 0;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 31;
  if (!known || !group_fits || entry.shape[0] >= kMost || entry.shape[1] >= kMost) {
    return fail(ErrorCode::corrupt, "image entry '{}' is no matrix of this version (format {}, group {})",
                entry.name, entry.format, group);
  }
  matrix.format = static_cast<WeightFormat>(format);
  matrix.rows = static_cast<std::uint32_t>(entry.shape[0]);
  matrix.columns = static_cast<std::uint32_t>(entry.shape[1]);
  matrix.group = group;
  matrix.minimum = (entry.parameters[1] & kMinimumFlag) != 0;
  matrix.wide_scales = (entry.parameters[1] & kWideFlag) != 0;
  matrix.interleaved = (entry.parameters[1] & kInterleavedFlag) != 0;
  matrix.bytes = bytes;
  if (matrix.packed_bytes() != bytes.size()) {
    return fail(ErrorCode::corrupt, "image entry '{}' has {} bytes; its shape asks for {}", entry.name,
                bytes.size(), matrix.packed_bytes());
  }
  return matrix;
}

// Bytes of an image, wherever they lie.
class PackedImage final : public ModelImage {
 public:
  static Result<std::shared_ptr<const ModelImage>> of(Result<std::shared_ptr<const ImageFile>> loaded) {
    if (!loaded) return pass(loaded.error());
    const std::shared_ptr<const ImageFile> file = *std::move(loaded);
    if (file->description().layout_version != kPackedLayoutVersion) {
      return fail(ErrorCode::unsupported, "layout version {}; this program reads {}: make it anew",
                  file->description().layout_version, kPackedLayoutVersion);
    }
    return std::make_shared<PackedImage>(file->contents(), file->data(), file);
  }
  static Result<std::shared_ptr<const ModelImage>> open(const fs::path& path) {
    auto image = of(ImageFile::open(path));
    if (!image) return fail_at(path.string(), image.error());
    return image;
  }

  // `file`: that holds the data; nullptr where it lies alone.
  PackedImage(std::shared_ptr<const ImageContents> contents, std::span<const std::byte> data,
              std::shared_ptr<const ImageFile> file)
      : contents_(std::move(contents)), data_(data), file_(std::move(file)) {}

  const ModelConfig& config() const override { return contents_->description().config; }
  std::span<const std::byte> tokenizer() const override { return contents_->description().tokenizer; }
  std::string_view hash() const override { return contents_->description().source_hash; }
  std::span<const std::byte> bytes() const override { return data_; }
  std::span<const std::byte> file() const override {
    return file_ == nullptr ? std::span<const std::byte>() : file_->file();
  }
  Status copy_file(std::span<std::byte> out, const std::function<bool(std::uint64_t)>& go_on) const override {
    return file_ == nullptr ? ModelImage::copy_file(out, go_on) : file_->copy(out, go_on);
  }

  std::shared_ptr<const ModelImage> placed_at(std::span<const std::byte> bytes) const override {
    if (bytes.size() < data_.size()) return nullptr;
    return std::make_shared<PackedImage>(contents_, bytes.first(data_.size()), nullptr);
  }

  Result<PackedMatrix> matrix(std::string_view name) const override {
    const ImageEntry* entry = contents_->find(name);
    if (entry == nullptr) return fail(ErrorCode::not_found, "the image has no matrix '{}'", name);
    return to_matrix(*entry, data_.subspan(entry->offset, entry->bytes));
  }

  Result<std::span<const float>> vector(std::string_view name) const override {
    const ImageEntry* entry = contents_->find(name);
    if (entry == nullptr || entry->format != kVectorEntry) {
      return fail(ErrorCode::not_found, "the image has no vector '{}'", name);
    }
    const std::span<const std::byte> run = data_.subspan(entry->offset, entry->bytes);
    return std::span(reinterpret_cast<const float*>(run.data()), run.size() / sizeof(float));
  }

 private:
  std::shared_ptr<const ImageContents> contents_;
  std::span<const std::byte> data_;
  std::shared_ptr<const ImageFile> file_;
};

// The name of an image: of its checkpoint and the layout's version.
std::string image_hash(const std::string& checkpoint_hash) {
  ByteWriter record;
  record.write_string("switchyard image");
  record.write(kPackedLayoutVersion);
  record.write_string(checkpoint_hash);
  Sha256 hash;
  hash.update(record.bytes());
  return to_hex(hash.finish());
}

Status write_image(const Checkpoint& checkpoint, const std::string& hash, const fs::path& target,
                   const Progress& progress) {
  auto plan = plan_image(checkpoint.config(), checkpoint.tensors());
  if (!plan) return pass(plan.error());
  ImageDescription description;
  description.layout_version = kPackedLayoutVersion;
  description.source_hash = hash;
  description.config = checkpoint.config();
  description.tokenizer = checkpoint.tokenizer().serialize();
  auto writer = ImageWriter::create(target, std::move(description));
  if (!writer) return pass(writer.error());

  std::uint64_t total = 0;
  for (const PlannedEntry& entry : *plan) total += entry.is_matrix ? entry.matrix.packed_bytes() : 0;
  std::uint64_t done = 0;
  std::vector<std::byte> panel;
  for (const PlannedEntry& entry : *plan) {
    if (!entry.is_matrix) {
      const std::vector<float> values = pack_vector(entry);
      ImageEntry header;
      header.name = entry.name;
      header.format = kVectorEntry;
      header.shape = {values.size(), 1};
      if (auto status = (*writer)->add(std::move(header), std::as_bytes(std::span(values))); !status)
        return status;
      continue;
    }
    if (auto status = (*writer)->begin(to_entry(entry.name, entry.matrix)); !status) return status;
    panel.resize(entry.matrix.panel_bytes());
    for (std::uint32_t i = 0; i < entry.matrix.panels(); ++i) {
      pack_panel(entry.matrix, entry.tensors, i, panel);
      if (auto status = (*writer)->append(panel); !status) return status;
      done += panel.size();
      if (progress && (i % 64 == 0 || i + 1 == entry.matrix.panels())) progress(done, total);
    }
  }
  return (*writer)->finish();
}

fs::path note_of(const fs::path& image) {
  return cache_directory() / "hashes" / (image.filename().string() + ".written");
}

// Notes the image's hash. The hash is remembered, so that the file is read again only when it was
// touched.
Status note_as_written(const fs::path& image, const HashOptions& options) {
  const auto hash = hash_files(std::span(&image, 1), options);
  if (!hash) return pass(hash.error());
  return replace_file(note_of(image), *hash);
}

// Whether the image has the bytes that were noted.
bool is_as_written(const fs::path& image, const HashOptions& options) {
  const auto expected = read_file(note_of(image), kMaxNoteBytes);
  if (!expected) return false;
  const auto hash = hash_files(std::span(&image, 1), options);
  return hash && *hash == *expected;
}

HashOptions remembering(const Progress& progress) {
  HashOptions options = HashOptions::with_default_cache();
  options.progress = progress;
  return options;
}

fs::path image_path(const std::string& hash) {
  return cache_directory() / "images" / (hash + std::string(kImageExtension));
}

Result<std::shared_ptr<const ModelImage>> make_image(const fs::path& path, const std::string& hash,
                                                     const HashOptions& options) {
  const fs::path target = image_path(hash);
  auto checkpoint = Checkpoint::open(path);
  if (!checkpoint) return pass(checkpoint.error());
  log::info("preparing {} ({}) for this program; needed once", path.string(), (*checkpoint)->format());
  if (auto status = write_image(**checkpoint, hash, target, options.progress); !status)
    return pass(status.error());
  if (auto status = note_as_written(target, options); !status) return pass(status.error());
  return PackedImage::open(target);
}

}  // namespace

bool is_image_file(const fs::path& path) { return path.extension() == kImageExtension; }

Result<std::shared_ptr<const ModelImage>> ModelImage::open(const fs::path& path, const Progress& progress) {
  if (is_image_file(path)) return PackedImage::open(path);
  const HashOptions options = remembering(progress);
  auto checkpoint_hash = hash_checkpoint(path, options);
  if (!checkpoint_hash) return pass(checkpoint_hash.error());
  const std::string hash = image_hash(*checkpoint_hash);
  const fs::path target = image_path(hash);
  if (is_as_written(target, options)) {
    if (auto image = PackedImage::open(target); image) return image;
  }
  return make_image(path, hash, options);
}

Result<std::shared_ptr<const ModelImage>> ModelImage::repair(const fs::path& path, std::string_view hash,
                                                             const Progress& progress) {
  if (is_image_file(path)) {
    return fail(ErrorCode::corrupt,
                "{} is damaged, and an image cannot be made anew without its checkpoint: replace the file",
                path.string());
  }
  // Before the checkpoint is looked at: whatever comes of that, nobody takes the file for a whole one again.
  const fs::path target = image_path(std::string(hash));
  const bool whole = is_as_written(target, {.cache = {}, .progress = progress});
  if (!whole) {
    log::warn("{} is damaged: it is removed, and made anew from {}", target.string(), path.string());
    std::error_code ignored;  // it is replaced anyway
    fs::remove(note_of(target), ignored);
    fs::remove(target, ignored);
  }
  const HashOptions options = remembering(progress);
  auto checkpoint_hash = hash_checkpoint(path, options);
  if (!checkpoint_hash) return pass(checkpoint_hash.error());
  if (image_hash(*checkpoint_hash) != hash) {
    return fail(ErrorCode::invalid,
                "the image of {} is damaged, and the checkpoint is another one now: remove the model and add "
                "it again",
                path.string());
  }
  if (whole) {
    if (auto image = PackedImage::open(target); image) return image;
  }
  return make_image(path, std::string(hash), options);
}

Result<std::shared_ptr<const ModelImage>> ModelImage::parse(std::span<const std::byte> file,
                                                            std::shared_ptr<const void> keep) {
  if (reinterpret_cast<std::uintptr_t>(file.data()) % kVectorAlignment != 0) {
    return fail(ErrorCode::invalid, "the model image lies in memory that is not aligned to {} bytes",
                kVectorAlignment);
  }
  return PackedImage::of(ImageFile::parse(file, std::move(keep)));
}

}  // namespace switchyard::model
