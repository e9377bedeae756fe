#include "model/image_file.h"

#include <algorithm>

#include "base/sha256.h"
#include "model/image_format.h"
#include "model/mapped_file.h"

namespace switchyard::model {
namespace {

class LoadedImage final : public ImageFile {
 public:
  explicit LoadedImage(MappedFile mapping = {}) : mapping_(std::move(mapping)) {}

  Status load(std::span<const std::byte> file) {
    const auto header = parse_image_header(file);
    if (!header) return pass(header.error());
    const auto index_bytes = file.last(header->index_bytes);
    Sha256 hash;
    hash.update(index_bytes);
    if (hash.finish() != header->index_hash) return fail(ErrorCode::corrupt, "the image's index is damaged");
    auto index = parse_image_index(index_bytes, header->data_bytes);
    if (!index) return pass(index.error());
    description_ = std::move(index->description);
    entries_ = std::move(index->entries);
    for (std::size_t i = 0; i < entries_.size(); ++i) by_name_.emplace(entries_[i].name, i);
    data_ = file.subspan(kImageAlignment, header->data_bytes);
    data_hash_ = header->data_hash;
    file_bytes_ = file.size();
    return {};
  }

  const MappedFile& mapping() const { return mapping_; }

 private:
  MappedFile mapping_;
};

}  // namespace

Result<std::shared_ptr<const ImageFile>> ImageFile::open(const std::filesystem::path& path) {
  auto mapping = MappedFile::open(path);
  if (!mapping) return pass(mapping.error());
  auto image = std::make_shared<LoadedImage>(std::move(*mapping));
  if (auto status = image->load(image->mapping().bytes()); !status)
    return fail_at(path.string(), status.error());
  return image;
}

Result<std::shared_ptr<const ImageFile>> ImageFile::parse(std::span<const std::byte> bytes) {
  auto image = std::make_shared<LoadedImage>();
  if (auto status = image->load(bytes); !status) return pass(status.error());
  return image;
}

const ImageEntry* ImageFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

Status ImageFile::verify(const std::function<void(std::uint64_t, std::uint64_t)>& progress) const {
  constexpr std::size_t kPiece = 8u << 20;
  Sha256 hash;
  for (std::size_t done = 0; done < data_.size();) {
    const std::size_t count = std::min(kPiece, data_.size() - done);
    hash.update(data_.subspan(done, count));
    done += count;
    if (progress) progress(done, data_.size());
  }
  if (hash.finish() == data_hash_) return {};
  return fail(ErrorCode::corrupt, "the image's data is damaged: its SHA-256 is not the one that was written");
}

}  // namespace switchyard::model
