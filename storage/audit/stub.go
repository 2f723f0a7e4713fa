package audit
import ("context";"sealift/storage")
func Clear(ctx context.Context, reg storage.Registry, files Files, o Options) (Report, error) {
	r := newRecovery(reg, files, o)
	var all []storage.File
	if err := reg.Leaving(ctx, func(f storage.File) error { all = append(all, f); return nil }); err != nil { return nil, err }
	for i := range all {
		f := &all[i]
		if f.Verified {
			if err := files.Remove(ctx, f.Stored()); err != nil { return nil, err }
			if f.Deleted {
				r.do(&storage.ForgetFile{Outcome: own, ID: f.ID, Path: f.Path, Incoming: f.Incoming}, Finding{Event: Expired, File: *f})
			} else {
				r.mark(f, true, Finding{Event: Missing, File: *f})
			}
		} else { r.drop(f, Finding{Event: Expired, File: *f}) }
		if err := r.flush(ctx); err != nil { return nil, err }
	}
	return nil, nil
}
