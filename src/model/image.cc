// Finds or makes the image of a checkpoint.
//
// <cache>/images/HASH.image       images; HASH is of the checkpoint's files and the layout's version
// <cache>/images/known/KEY        HASH for a checkpoint seen before; KEY is of its path and its files' names,
// sizes,
//                                 inodes and times, so that a second start need not read the checkpoint
#include "model/image.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/sha256.h"
#include "model/checkpoint.h"
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

class MappedImage final : public ModelImage {
 public:
  static Result<std::shared_ptr<const ModelImage>> open(const fs::path& path) {
    auto file = ImageFile::open(path);
    if (!file) return fail_at(path.string(), file.error());
    if ((*file)->description().layout_version != kPackedLayoutVersion) {
      return fail(ErrorCode::unsupported, "{}: layout version {}; this program reads {}: make it anew",
                  path.string(), (*file)->description().layout_version, kPackedLayoutVersion);
    }
    return std::shared_ptr<const ModelImage>(new MappedImage(std::move(*file)));
  }

  const ModelConfig& config() const override { return file_->description().config; }
  std::span<const std::byte> tokenizer() const override { return file_->description().tokenizer; }
  std::string_view hash() const override { return file_->description().source_hash; }
  std::span<const std::byte> bytes() const override { return file_->data(); }

  Result<PackedMatrix> matrix(std::string_view name) const override {
    const ImageEntry* entry = file_->find(name);
    if (entry == nullptr) return fail(ErrorCode::not_found, "the image has no matrix '{}'", name);
    return to_matrix(*entry, file_->data(*entry));
  }

  Result<std::span<const float>> vector(std::string_view name) const override {
    const ImageEntry* entry = file_->find(name);
    if (entry == nullptr || entry->format != kVectorEntry) {
      return fail(ErrorCode::not_found, "the image has no vector '{}'", name);
    }
    const std::span<const std::byte> run = file_->data(*entry);
    return std::span(reinterpret_cast<const float*>(run.data()), run.size() / sizeof(float));
  }

 private:
  explicit MappedImage(std::shared_ptr<const ImageFile> file) : file_(std::move(file)) {}

  std::shared_ptr<const ImageFile> file_;
};

// A digest of what the file system says of a checkpoint; empty where it cannot be asked.
std::string identity(const fs::path& path) {
  std::error_code error;
  const fs::path canonical = fs::canonical(path, error);
  if (error) return {};
  std::vector<fs::path> files{canonical};
  const bool alone = canonical.extension() == ".gguf";
  const fs::path folder = fs::is_directory(canonical, error) ? canonical : canonical.parent_path();
  if (!alone) {
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      files.push_back(at->path());
    }
    std::sort(files.begin(), files.end());
  }
  ByteWriter record;
  record.write(kPackedLayoutVersion);
  record.write_string(canonical.string());
  for (const fs::path& file : files) {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) return {};
    if (!S_ISREG(status.st_mode)) continue;
    record.write_string(file.filename().string());
    record.write(static_cast<std::uint64_t>(status.st_size));
    record.write(static_cast<std::uint64_t>(status.st_ino));
    record.write(static_cast<std::int64_t>(status.st_mtim.tv_sec));
    record.write(static_cast<std::int64_t>(status.st_mtim.tv_nsec));
  }
  Sha256 hash;
  hash.update(record.bytes());
  return to_hex(hash.finish());
}

// The name of the image of a checkpoint: of its files' bytes and the layout's version.
Result<std::string> source_hash(const Checkpoint& checkpoint) {
  ByteWriter record;
  record.write_string("switchyard image");
  record.write(kPackedLayoutVersion);
  for (const fs::path& file : checkpoint.files()) {
    auto digest = sha256_file(file);
    if (!digest) return pass(digest.error());
    record.write_bytes(std::as_bytes(std::span(*digest)));
  }
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

// Best effort: without the note, the next start hashes the checkpoint again.
void note_known(const fs::path& note, const std::string& hash) {
  std::error_code error;
  fs::create_directories(note.parent_path(), error);
  const fs::path fresh = note.string() + "." + std::to_string(::getpid());
  {
    std::ofstream file(fresh, std::ios::trunc);
    file << hash;
    if (!file.flush()) return;
  }
  fs::rename(fresh, note, error);
}

std::string read_known(const fs::path& note) {
  std::ifstream file(note);
  std::string hash(64, ' ');
  file.read(hash.data(), 64);
  const bool whole = file.gcount() == 64 && std::all_of(hash.begin(), hash.end(), [](char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                     });
  return whole ? hash : std::string();
}

}  // namespace

Result<std::shared_ptr<const ModelImage>> ModelImage::open(const fs::path& path, const Progress& progress) {
  if (path.extension() == ".image") return MappedImage::open(path);
  const fs::path folder = cache_directory() / "images";
  const auto image_path = [&](const std::string& hash) { return folder / (hash + ".image"); };
  const std::string key = identity(path);
  const fs::path note = folder / "known" / key;
  if (!key.empty()) {
    if (const std::string hash = read_known(note); !hash.empty()) {
      if (auto image = MappedImage::open(image_path(hash)); image) return image;
    }
  }
  auto checkpoint = Checkpoint::open(path);
  if (!checkpoint) return pass(checkpoint.error());
  auto hash = source_hash(**checkpoint);
  if (!hash) return pass(hash.error());
  auto image = MappedImage::open(image_path(*hash));
  if (!image) {
    log::info("preparing {} ({}) for this program; needed once", path.string(), (*checkpoint)->format());
    if (auto status = write_image(**checkpoint, *hash, image_path(*hash), progress); !status) {
      return pass(status.error());
    }
    image = MappedImage::open(image_path(*hash));
  }
  if (image && !key.empty()) note_known(note, *hash);
  return image;
}

}  // namespace switchyard::model
